//! Moments at which a test can end the process as `kill -9` would. Built in only with the feature `failpoints`, and never in a
//! release.

/// Ends the process at once if `SCHEMADOCK_FAILPOINT` names this moment: `<step>.before` or `<step>.after`, with `#N`
/// behind it for the Nth time; or `each:FILE` for every moment once, those in FILE having had their turn.
#[cfg(all(feature = "failpoints", debug_assertions))]
pub fn reach(step: &str, moment: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static HITS: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("SCHEMADOCK_FAILPOINT") else { return };
    let here = format!("{step}.{moment}");
    if let Some(file) = wanted.strip_prefix("each:") {
        end_once(file, &here);
        return;
    }
    let (point, count) = wanted.split_once('#').unwrap_or((&wanted, "1"));
    if point == here && Ok(HITS.fetch_add(1, Ordering::SeqCst) + 1) == count.parse() {
        end(&here);
    }
}

/// Ends the process at a moment that does not stand in the file yet, and notes it there.
#[cfg(all(feature = "failpoints", debug_assertions))]
#[allow(clippy::disallowed_methods)]
fn end_once(file: &str, here: &str) {
    use std::io::Write as _;
    // Both lanes of many instances come here at once: one moment, one end.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE.lock();
    let had = std::fs::read_to_string(file).unwrap_or_default();
    if had.lines().any(|line| line == here) {
        return;
    }
    let open = std::fs::OpenOptions::new().create(true).append(true).open(file);
    if open.and_then(|mut open| writeln!(open, "{here}")).is_ok() {
        end(here);
    }
}

#[cfg(all(feature = "failpoints", debug_assertions))]
fn end(point: &str) {
    tracing::error!(point, "failpoint reached: ending at once");
    let own = nix::unistd::getpid();
    let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
}

/// Nothing, in releases and builds without the feature.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
pub fn reach(_step: &str, _moment: &str) {}
