//! `edit`: a document in $EDITOR.

use std::collections::BTreeSet;
use std::path::Path;

use schemadock_schema::refusal::Refusal;
use schemadock_schema::strict::read_file;
use schemadock_schema::{ClusterName, InstanceName};
use serde_json::{Map, Value, json};

use super::context::OutputArg;
use super::seen::{self, Seen, StoredTarget};
use super::target_plan::{self, Given, TargetPlan, Wish};
use super::{Context, Failure, output, targets};

/// Arguments.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false)]
pub struct Args {
    /// The instance.
    #[arg(group = "what")]
    pub instance: Option<String>,
    /// All instances of a cluster.
    #[arg(long, value_name = "CLUSTER", group = "what")]
    pub cluster: Option<String>,
    /// All instances of a host.
    #[arg(long, value_name = "HOST", group = "what")]
    pub host: Option<String>,
    /// How refusals are written.
    #[command(flatten)]
    pub output: OutputArg,
}

/// What to do with a text that was not taken.
enum Again {
    Edit,
    GiveUp(Failure),
}

/// Opens the editor, judges what it leaves, and writes it.
///
/// # Errors
/// For unknown names, wrong documents and lost races; the text is then kept in a file that the message names.
pub async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let seen = seen::look(ctx, Vec::new()).await?;
    let chosen = chosen(&seen, &args)?;
    let before: Map<String, Value> =
        chosen.iter().map(|(name, stored)| (name.to_string(), document(stored))).collect();
    let original = serde_json::to_string_pretty(&before).unwrap_or_default() + "\n";
    let expected = chosen.iter().map(|(name, stored)| ((*name).clone(), stored.mod_revision)).collect();
    let file = tempfile::Builder::new()
        .prefix("schemadock-edit-")
        .suffix(".json")
        .tempfile()
        .map_err(|why| Failure::failed(format!("no temporary file can be made: {why}")))?;
    let (_, path) = file.keep().map_err(|why| Failure::failed(format!("the text cannot be kept: {why}")))?;
    let keep = |failure: Failure| {
        anstream::eprintln!("your text is kept in {}", path.display());
        failure
    };
    std::fs::write(&path, &original).map_err(|why| Failure::failed(format!("{}: {why}", path.display())))?;
    let mut wish = Wish { expected, ..Wish::default() };
    let planned = loop {
        editor(&path).map_err(&keep)?;
        let text = std::fs::read(&path)
            .map_err(|why| keep(Failure::failed(format!("{}: {why}", path.display()))))?;
        if text == original.as_bytes() {
            let _ = std::fs::remove_file(&path);
            output::line("nothing was changed");
            return Ok(());
        }
        match judge(ctx, &mut wish, &path, &text, &before).await {
            Ok(planned) => break planned,
            Err(failure) => match again(ctx, failure, args.output.json()) {
                Again::Edit => {}
                Again::GiveUp(failure) => return Err(keep(failure)),
            },
        }
    };
    targets::say(&planned);
    if planned.is_empty() {
        let _ = std::fs::remove_file(&path);
        output::line("nothing to change");
        return Ok(());
    }
    let written = targets::write(ctx, &wish, &planned).await.map_err(&keep)?;
    let _ = std::fs::remove_file(&path);
    match args.output.json() {
        true => output::line(json!({"changes": targets::json(&written), "written": true}).to_string()),
        false => output::line(targets::text(&written)),
    }
    Ok(())
}

type Chosen<'a> = Vec<(&'a InstanceName, &'a StoredTarget)>;

fn chosen<'a>(seen: &'a Seen, args: &Args) -> Result<Chosen<'a>, Failure> {
    let wanted = |name: &InstanceName, stored: &StoredTarget| {
        args.instance.as_deref().is_some_and(|wanted| name.as_str() == wanted)
            || args.host.as_deref().is_some_and(|wanted| stored.host.as_str() == wanted)
            || (args.cluster.is_some()
                && args.cluster.as_deref() == stored.cluster.as_ref().map(ClusterName::as_str))
    };
    let found: Chosen<'a> = seen.all_targets().filter(|(name, stored)| wanted(name, stored)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let hosts: BTreeSet<&str> = seen.all_targets().map(|(_, stored)| stored.host.as_str()).collect();
    let clusters = seen.clusters();
    Err(match (&args.instance, &args.cluster, &args.host) {
        (Some(name), _, _) => targets::unknown("target", name, seen.targets.keys().map(InstanceName::as_str)),
        (_, Some(name), _) => targets::unknown("cluster", name, clusters.iter().map(ClusterName::as_str)),
        (_, _, host) => targets::unknown("target on host", host.as_deref().unwrap_or_default(), hosts),
    })
}

/// The document as it stands; one that cannot be read as its bytes say, if they are JSON at all.
fn document(stored: &StoredTarget) -> Value {
    match &stored.target {
        Ok(target) => json!({ "data": target }),
        Err(_) => stored.raw.clone(),
    }
}

async fn judge(
    ctx: &Context,
    wish: &mut Wish,
    path: &Path,
    text: &[u8],
    before: &Map<String, Value>,
) -> Result<TargetPlan, Failure> {
    let file = path.display().to_string();
    let read = read_file(&file, text).map_err(Failure::Files)?;
    let foreign = read.iter().filter(|(name, _)| !before.contains_key(name.as_str()));
    let refusals: Vec<Refusal> = foreign
        .map(|(name, _)| Refusal {
            file: Some(file.clone()),
            path: Some(name.to_string()),
            found: "a name that was not there".to_owned(),
            expected: before.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            hint: Some("names never change; `apply` adds instances".to_owned()),
        })
        .collect();
    if !refusals.is_empty() {
        return Err(Failure::Files(refusals));
    }
    wish.given = read.into_iter().map(|(name, target)| Given { file: file.clone(), name, target }).collect();
    let seen = seen::look(ctx, Vec::new()).await?;
    let planned = target_plan::plan(&ctx.keys, &seen, wish)?;
    match planned.locked.is_empty() {
        true => Ok(planned),
        false => Err(Failure::Refused(planned.locked)),
    }
}

/// Somebody at a terminal may go on editing; not where somebody else was faster.
fn again(ctx: &Context, failure: Failure, json: bool) -> Again {
    if !matches!(failure, Failure::Files(_)) || !ctx.can_ask() {
        return Again::GiveUp(failure);
    }
    failure.print(json);
    match ctx.confirm("Edit it again?", false) {
        Ok(()) => Again::Edit,
        Err(_) => Again::GiveUp(Failure::Told(2)),
    }
}

fn editor(path: &Path) -> Result<(), Failure> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // Through the shell, since people set editors with arguments.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::failed(format!("the editor {editor:?} ended with {status}; nothing was written")))
        }
        Err(why) => Err(Failure::failed(format!("the editor {editor:?} cannot be started: {why}"))
            .hint("Set EDITOR to another one.")),
    }
}
