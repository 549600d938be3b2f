//! `moesync get`: copies a stored archive or one of its entries to a file.
//!
//! This file also owns which object and entry the options of `get` and `cat` mean.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::NamedTempFile;

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::{Shell, stop_signal},
    table,
};
use crate::{
    config::{Config, key_part},
    reading::{self, CopyError, Lookup, Part, Stored},
    store::Destination,
    temporary::folder_of,
    words::CopiedObject,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    choice: Choice,
    /// The file to write, or an existing folder for it [default: the object's or entry's own name, in this folder].
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Replaces the file if it exists.
    #[arg(long)]
    force: bool,
}

/// The object, and what of it.
#[derive(Debug, Args)]
pub(super) struct Choice {
    #[command(flatten)]
    scope: Scope,
    /// The partition's date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true, requires = "report", required_unless_present = "key")]
    date: Option<WrittenDate>,
    /// The object with this key, as `moesync ls` prints it; for other content of a date, under _versions/.
    #[arg(long, value_name = "KEY", conflicts_with = "date")]
    key: Option<String>,
    /// Only the contents of this entry, by its name as `moesync ls --entries` prints it; `""` for one without a name.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    entry: Option<String>,
}

/// What is copied.
pub(super) struct Chosen {
    pub(super) destination: Destination,
    pub(super) stored: Stored,
    pub(super) part: Part,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let chosen = chosen(shell, &options.choice).await?;
    let target = target(&chosen, options.output.as_deref(), options.force)?;
    let failed = |error: &io::Error| CommandError::Failed(format!("could not write {}: {error}", target.display()));
    let mut builder = tempfile::Builder::new();
    // As any program creates a file: the umask applies.
    builder.prefix(".moesync-").permissions(Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(folder_of(&target)).map_err(|error| failed(&error))?;
    let size = tokio::select! {
        copied = reading::copy(&chosen.destination, &chosen.stored, chosen.part, &mut file) => match copied {
            Ok(copied) => copied.size,
            Err(CopyError::Write(error)) => return Err(failed(&error)),
            Err(error) => return Err(CommandError::Failed(error.to_string())),
        },
        // The unfinished file is removed.
        () = stop_signal() => return Err(CommandError::Failed("stopped by a signal; no file was written".to_owned())),
    };
    persist(file, &target, options.force).map_err(|error| failed(&error))?;
    let copied = CopiedObject {
        key: chosen.stored.manifest.key.clone(),
        entry: options.choice.entry,
        path: target.display().to_string(),
        size,
    };
    shell.print(&copied, |copied| format!("{}  {}\n", table::size(copied.size), table::printable(&copied.path)))?;
    Ok(Completion::Done)
}

fn persist(file: NamedTempFile, target: &Path, is_forced: bool) -> io::Result<()> {
    file.as_file().sync_all()?;
    let named = if is_forced { file.persist(target) } else { file.persist_noclobber(target) };
    named.map(drop).map_err(|error| error.error)
}

/// The file to write.
fn target(chosen: &Chosen, output: Option<&Path>, is_forced: bool) -> Result<PathBuf> {
    let target = match output {
        Some(path) if path.is_dir() => path.join(own_name(chosen)),
        Some(path) => path.to_owned(),
        None => PathBuf::from(own_name(chosen)),
    };
    match fs::metadata(&target) {
        Ok(metadata) if !metadata.is_file() => Err(CommandError::Usage(format!(
            "{} is not a file; `moesync cat` writes to standard output",
            target.display()
        ))),
        Ok(_) if !is_forced => Err(CommandError::Usage(format!("{} exists; --force replaces it", target.display()))),
        _ => Ok(target),
    }
}

/// The last part of the entry's or object's name. An entry's name may be that of another folder or of a device, so it is
/// reduced to the characters that keys have.
fn own_name(chosen: &Chosen) -> String {
    let Stored { manifest, .. } = &chosen.stored;
    let object = manifest.key.rsplit('/').next().unwrap_or_default();
    let Part::Entry(position) = chosen.part else { return object.to_owned() };
    let entry = manifest.entries.iter().flatten().nth(position).map_or("", |entry| entry.name.as_str());
    match key_part(entry.rsplit(['/', '\\']).next().unwrap_or_default()) {
        // The member of a gzip archive without a name: that of the archive, without its extension.
        name if name.is_empty() => object.rsplit_once('.').map_or(object, |(stem, _)| stem).to_owned(),
        name => name,
    }
}

/// Finds the object and the entry.
pub(super) async fn chosen(shell: &Shell, choice: &Choice) -> Result<Chosen> {
    let config = shell.config()?;
    let (what, found, destination) = match (&choice.key, choice.date) {
        (Some(key), _) => {
            let (found, destination) = by_key(&config, choice, key).await?;
            (format!("`{key}`"), found, destination)
        }
        (None, Some(date)) => {
            let report = choice.scope.one(&config)?;
            let date = date.on(today(&choice.scope, &config, shell.clock.now()));
            let selection = choice.scope.selection(&config)?;
            let what = format!("report {} of {date}", report.id);
            match reading::open(&config, &selection)?.as_slice() {
                [open] => (what, reading::find(open, date).await?, open.destination.clone()),
                _ => return Err(CommandError::Usage("name one report with --report ID".into())),
            }
        }
        (None, None) => {
            return Err(CommandError::Usage("name an object with --report ID --date DATE, or --key".into()));
        }
    };
    let stored = match found {
        Lookup::One(stored) => *stored,
        Lookup::Nothing => {
            return Err(CommandError::Failed(format!(
                "nothing is stored for {what}; `moesync ls` lists what is stored"
            )));
        }
        Lookup::Several(keys) => {
            return Err(CommandError::Usage(format!(
                "several objects are stored for {what}; name one with --key: {}",
                keys.join(", ")
            )));
        }
    };
    let part = match &choice.entry {
        None => Part::Whole,
        Some(name) => Part::Entry(position(&stored, name)?),
    };
    Ok(Chosen { destination, stored, part })
}

async fn by_key(config: &Config, choice: &Choice, key: &str) -> Result<(Lookup, Destination)> {
    let mut selection = choice.scope.selection(config)?;
    let owner = config.reports.iter().filter(|report| selection.covers_report(&report.id));
    let mut owner = owner.filter(|report| key.starts_with(&format!("{}/", report.key_prefix())));
    let Some(report) = owner.next() else {
        return Err(CommandError::Usage(format!(
            "no configured report has objects with a key such as `{key}`; `moesync ls` prints keys"
        )));
    };
    selection.workspace = Some(report.id.workspace().to_owned());
    selection.report = Some(report.id.name().to_owned());
    match reading::open(config, &selection)?.as_slice() {
        [open, ..] => Ok((reading::find_key(open, key).await?, open.destination.clone())),
        [] => Err(CommandError::Usage(format!("no configured report has the key `{key}`"))),
    }
}

/// The position of the entry with this name.
fn position(stored: &Stored, name: &str) -> Result<usize> {
    let manifest = &stored.manifest;
    let entries = || manifest.entries.iter().flatten().enumerate();
    let found: Vec<usize> = entries().filter(|(_, entry)| entry.name == name).map(|(position, _)| position).collect();
    match found.as_slice() {
        [position] => Ok(*position),
        [] => {
            let names: Vec<_> = entries().take(20).map(|(_, it)| format!("`{}`", table::printable(&it.name))).collect();
            Err(CommandError::Usage(format!(
                "`{}` has no entry `{}`; its entries: {}",
                manifest.key,
                table::printable(name),
                names.join(", ")
            )))
        }
        several => Err(CommandError::Usage(format!(
            "`{}` has {} entries called `{}`; copy the whole archive",
            manifest.key,
            several.len(),
            table::printable(name)
        ))),
    }
}
