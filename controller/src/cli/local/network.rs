//! The network of a fleet whose hosts have addresses of their own (`local up --netns`): a bridge in this machine's own
//! network namespace, and a link from it into the namespace of each host.
//!
//! Out of 198.18.0.0/15 (RFC 2544, for tests of networks) each fleet has a /24 of its own. Traffic between hosts stays on
//! the bridge. Where `br_netfilter` hands it to iptables all the same, a policy that drops what is forwarded (Docker sets
//! it) would drop it, hence the fleet's rules; they name its bridge and nothing else.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::directory::{Directory, Remembered, trouble};
use super::store::on_path;
use crate::cli::Failure;

/// How many networks of 256 addresses there are to choose from.
const SUBNETS: u16 = 512;
/// The last number of this machine's own address in a fleet's network; hosts have smaller ones.
const OWN: u8 = 254;
/// What is called here, each with Debian's package.
const TOOLS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
];
/// Where the kernel shows the links of this machine.
const LINKS: &str = "/sys/class/net";

/// Names and addresses of a fleet's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// The fleet's eight hexadecimal digits.
    name: String,
    /// Which of the networks of 256 addresses.
    subnet: u16,
}

impl Remembered {
    /// The network of hosts with addresses of their own, once it was chosen.
    pub(super) fn network(&self) -> Option<Network> {
        let subnet = self.subnet.filter(|_| self.netns)?;
        Some(Network { name: self.name.clone(), subnet })
    }
}

impl Network {
    fn number(&self, last: u8) -> Ipv4Addr {
        let [high, low] = self.subnet.to_be_bytes();
        Ipv4Addr::new(198, 18 + high, low, last)
    }

    /// The address of host `number` (from 1 on).
    pub(super) fn address(&self, number: u8) -> Ipv4Addr {
        self.number(number)
    }

    /// This machine's own address there: etcd listens on it, and clients come from it.
    pub(super) fn own_address(&self) -> Ipv4Addr {
        self.number(OWN)
    }

    /// All of its addresses.
    pub(super) fn range(&self) -> String {
        format!("{}/24", self.number(0))
    }

    /// The bridge. Names of links have at most 15 characters.
    pub(super) fn bridge(&self) -> String {
        format!("sd{}", self.name)
    }

    /// This machine's end of the link to host `number`.
    pub(super) fn link(&self, number: u8) -> String {
        format!("sd{}-{number}", self.name)
    }

    /// Follows from the address, so that what is made anew is known to its neighbours at once.
    fn hardware_address(&self, last: u8) -> String {
        let [a, b, c, d] = self.number(last).octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// The rules that this machine's iptables has for it, without the verb.
    fn rules(&self) -> [Vec<String>; 2] {
        let bridge = self.bridge();
        [format!("FORWARD -i {bridge} -o {bridge} -j ACCEPT"), format!("INPUT -i {bridge} -j ACCEPT")]
            .map(|rule| rule.split(' ').map(str::to_owned).collect())
    }

    /// Whether the link to a host hangs on the bridge.
    pub(super) fn is_linked(&self, number: u8) -> bool {
        let bridge = std::fs::read_link(Path::new(LINKS).join(self.link(number)).join("master"));
        bridge.is_ok_and(|bridge| bridge.ends_with(self.bridge()))
    }

    /// Whether this machine's end of the link to a host was set down.
    pub(super) fn is_down(&self, number: u8) -> bool {
        const UP: u32 = 1;
        let flags = std::fs::read_to_string(Path::new(LINKS).join(self.link(number)).join("flags"));
        let flags = flags.ok().and_then(|text| u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok());
        flags.is_some_and(|flags| flags & UP == 0)
    }

    /// Gives the namespace of process `pid` a link to the bridge and its address, in place of what was there.
    pub(super) fn link_up(&self, number: u8, pid: i32) -> Result<(), Failure> {
        let link = self.link(number);
        if exists(&link) {
            ip(&["link", "del", &link])?;
        }
        let (hardware, pid_text) = (self.hardware_address(number), pid.to_string());
        let make = ["link", "add", &link, "type", "veth", "peer", "name", "eth0", "address", &hardware];
        ip(&[&make[..], &["netns", &pid_text]].concat())?;
        let address = format!("{}/24", self.address(number));
        let inside = namespace(pid);
        for arguments in [
            &["addr", "add", &address, "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["link", "set", "lo", "up"],
        ] {
            run(in_namespace(&inside, "ip").args(arguments), "")?;
        }
        // Last, since by this it is known to be whole.
        ip(&["link", "set", &link, "master", &self.bridge(), "up"])
    }

    /// Sets this machine's end of the link to a host up or down: to the host, as if somebody had pulled the cable.
    pub(super) fn set_link(&self, number: u8, state: &str) -> Result<(), Failure> {
        ip(&["link", "set", &self.link(number), state])
    }

    fn make_bridge(&self) -> Result<(), Failure> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "address", &self.hardware_address(OWN), "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.own_address()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])
    }
}

/// Says what is missing for hosts with addresses of their own, while nothing is started.
pub(super) fn check() -> Result<(), Failure> {
    need_root("Hosts with addresses of their own (--netns) need")?;
    let missing = TOOLS.iter().find(|(tool, _)| on_path(tool).is_none());
    missing.map_or(Ok(()), |(tool, package)| {
        Err(Failure::failed(format!("the program `{tool}` is not on the PATH"))
            .hint(format!("On Debian: apt-get install {package}. `./scripts/setup` does it, too.")))
    })
}

/// Refuses whoever is not root; `what` begins the sentence.
pub(super) fn need_root(what: &str) -> Result<(), Failure> {
    let me = nix::unistd::geteuid();
    if me.is_root() {
        return Ok(());
    }
    Err(Failure::failed(format!("{what} root, and this is uid {me}")).hint(
        "Call it with sudo, and then every other command on this fleet's directory (--dir), too; it is root's.",
    ))
}

/// Sees to it that the bridge is there, with an address and rules.
pub(super) fn provide(directory: &mut Directory) -> Result<Network, Failure> {
    // Two fleets that choose at once would choose the same network.
    let path = Path::new("/run");
    let chosen_by_one = File::open(path).map_err(|why| trouble("open", path, &why))?;
    let chosen_by_one = Flock::lock(chosen_by_one, FlockArg::LockExclusive)
        .map_err(|(_, why)| Failure::failed(format!("{} cannot be locked: {why}", path.display())))?;
    let remembered = &mut directory.remembered;
    let routes = run(Command::new("ip").args(["-4", "route", "show", "table", "all"]), "")?;
    let network = match remembered.network().filter(|network| stands(network, &routes)) {
        Some(network) => network,
        None => {
            let name = remembered.name.clone();
            let bridge = Network { name: name.clone(), subnet: 0 }.bridge();
            if exists(&bridge) {
                ip(&["link", "del", &bridge])?;
            }
            let taken = taken(&run(Command::new("ip").args(["-4", "route", "show", "table", "all"]), "")?);
            let subnet = choose(&name, remembered.subnet, &taken).ok_or_else(|| {
                Failure::failed("no network of 256 addresses in 198.18.0.0/15 is free")
                    .hint("`ip -4 route show table all` says who has them; `local down` frees a fleet's.")
            })?;
            let network = Network { name, subnet };
            remembered.subnet = Some(subnet);
            directory.remember()?;
            network.make_bridge()?;
            network
        }
    };
    drop(chosen_by_one);
    for rule in network.rules() {
        if !has_rule(&rule) {
            iptables("-I", &rule)?;
        }
    }
    Ok(network)
}

/// Takes links, bridge and rules away.
pub(super) fn remove(remembered: &Remembered) -> Result<(), Failure> {
    let Some(network) = remembered.network() else { return Ok(()) };
    let bridge = network.bridge();
    let entries = std::fs::read_dir(LINKS).map_err(|why| trouble("read", Path::new(LINKS), &why))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for link in names.filter(|name| name.starts_with(&bridge)) {
        match ip(&["link", "del", &link]) {
            // The kernel takes the link of a namespace that has ended away by itself.
            Err(why) if exists(&link) => return Err(why),
            _ => {}
        }
    }
    for rule in network.rules() {
        while has_rule(&rule) {
            iptables("-D", &rule)?;
        }
    }
    Ok(())
}

/// Whether its bridge is there and has its address.
fn stands(network: &Network, routes: &str) -> bool {
    let own = format!("local {} dev {} ", network.own_address(), network.bridge());
    routes.lines().any(|line| line.starts_with(&own))
}

/// The remembered network if it is free, else one that follows from the fleet's name, else the next.
fn choose(name: &str, remembered: Option<u16>, taken: &BTreeSet<u16>) -> Option<u16> {
    let first = u32::from_str_radix(name, 16).unwrap_or_default() % u32::from(SUBNETS);
    let first = u16::try_from(first).unwrap_or_default();
    let all = (0..SUBNETS).map(|step| (first + step) % SUBNETS);
    remembered.into_iter().chain(all).find(|subnet| !taken.contains(subnet))
}

/// Which of the networks some address or route in this listing is about.
fn taken(routes: &str) -> BTreeSet<u16> {
    let first = Ipv4Addr::new(198, 18, 0, 0).to_bits() >> 8;
    let mut found = BTreeSet::new();
    for word in routes.split_whitespace() {
        let (address, length) = word.split_once('/').unwrap_or((word, "32"));
        let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
            continue;
        };
        // A route for half the world does not mean this corner of it.
        if !(15..=32).contains(&length) {
            continue;
        }
        let from = address.to_bits() >> 8;
        let count = 1 << 24_u32.saturating_sub(length);
        let inside = (from..from + count).filter_map(|network| network.checked_sub(first));
        found.extend(
            inside.filter_map(|subnet| u16::try_from(subnet).ok()).filter(|subnet| *subnet < SUBNETS),
        );
    }
    found
}

fn exists(link: &str) -> bool {
    Path::new(LINKS).join(link).exists()
}

/// The network namespace of a process.
pub(super) fn namespace(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// A program in another network namespace; mounts, processes and cgroups stay what they are here.
pub(super) fn in_namespace(namespace: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    run(Command::new("ip").args(arguments), "").map(drop)
}

fn iptables(verb: &str, rule: &[String]) -> Result<(), Failure> {
    run(Command::new("iptables").args(["-w", "10", verb]).args(rule), "").map(drop)
}

fn has_rule(rule: &[String]) -> bool {
    iptables("-C", rule).is_ok()
}

/// Runs a command to its end and returns its output.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub(super) fn run(command: &mut Command, input: &str) -> Result<String, Failure> {
    let shown = format!("{command:?}").replace('"', "");
    let trouble = |why: std::io::Error| Failure::failed(format!("`{shown}` cannot be run: {why}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(trouble)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read to the end says why in its own words.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(trouble)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Failure::failed(format!("`{shown}` failed ({}): {}", done.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let network = Network { name: "0123abcd".to_owned(), subnet: 256 + 7 };
        assert_eq!(network.address(3), Ipv4Addr::new(198, 19, 7, 3));
        assert_eq!(network.range(), "198.19.7.0/24");
        assert_eq!(network.hardware_address(OWN), "02:00:c6:13:07:fe");
        assert!(network.link(100).len() <= 15, "{}", network.link(100));
    }

    #[test]
    fn networks_that_somebody_has_are_not_chosen() {
        let routes = "default via 192.0.2.1 dev eth0 \n\
                      198.18.7.0/24 dev sd1 proto kernel scope link src 198.18.7.254 \n\
                      local 198.18.9.1 dev x table local\n\
                      198.19.0.0/17 dev tun0\n\
                      128.0.0.0/1 dev tun1\n";
        let taken = taken(routes);
        assert_eq!(taken.len(), 2 + 128);
        assert!(taken.contains(&7) && taken.contains(&9) && taken.contains(&(256 + 127)));
        assert_eq!(choose("00000007", None, &taken), Some(8));
        assert_eq!(choose("00000007", Some(3), &taken), Some(3));
        assert_eq!(choose("000000ff", Some(9), &taken), Some(255));
        assert_eq!(choose("00000100", None, &taken), Some(256 + 128));
        assert_eq!(choose("00000100", None, &(0..SUBNETS).collect()), None);
    }
}
