//! What a directory's file system can do.
//!
//! This file owns the probe, which takes the steps of a commit. It must not know what the answers are used for.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{directory::Directory, durability::force_directory};

/// Most folders that one probe tries.
const MOST_FOLDERS: usize = 32;

/// What the file system can do.
pub(super) struct Abilities {
    /// Whether it refuses a name that is taken, by hard links.
    pub(super) refuses_overwrite: bool,
    /// Whether it forces names to disk, or does not have to.
    pub(super) forces_names: bool,
}

impl Directory {
    /// Writes, reads and removes a probe, by the steps of a commit: at the root, and in those of `folders` that exist,
    /// because each may be on another device than `_staging/`.
    pub(super) fn probe(&self, folders: &[PathBuf]) -> io::Result<Abilities> {
        let mut abilities = match self.probe_in(&self.root) {
            // The root may belong to another user, who made the folders for objects.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => self.probe_in(&self.staging)?,
            probed => probed?,
        };
        let existing = folders.iter().filter_map(|folder| folder.ancestors().find(|folder| folder.is_dir()));
        let existing: BTreeSet<&Path> = existing.filter(|folder| *folder != self.root).collect();
        for folder in existing.into_iter().take(MOST_FOLDERS) {
            let found = self.probe_in(folder)?;
            abilities.refuses_overwrite &= found.refuses_overwrite;
            abilities.forces_names &= found.forces_names;
        }
        Ok(abilities)
    }

    fn probe_in(&self, folder: &Path) -> io::Result<Abilities> {
        let [first, second] = [b"probe", b"other"].map(|bytes| self.append(None, bytes));
        let (first, second) = (first?, second?);
        self.durability.force_bytes(&first.file)?;
        let hidden = self.hidden_beside(&folder.join("probe"))?;
        let expect = |bytes: &[u8]| match fs::read(&hidden.path)? == bytes {
            true => Ok(()),
            false => Err(io::Error::other("the bytes read back are not those written")),
        };
        // The kernel itself refuses to link to a name that it knows is taken; so the first link is to a free one.
        let refuses_overwrite = fs::hard_link(&first.path, &hidden.path).is_ok()
            && matches!(fs::hard_link(&second.path, &hidden.path), Err(error) if error.kind() == ErrorKind::AlreadyExists);
        if !refuses_overwrite {
            let _ = fs::remove_file(&hidden.path);
            self.name_if_free(&first.path, &hidden.path)?;
        }
        expect(b"probe")?;
        self.rename(&second.path, &hidden.path)?;
        expect(b"other")?;
        let forces_names = !self.durability.is_on() || force_directory(folder)?;
        Ok(Abilities { refuses_overwrite, forces_names })
    }
}
