//! A file system of a few MiB.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A file system of its own, unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
    directory: Option<TempDir>,
}

impl SmallDisk {
    /// One of 4 MiB.
    pub fn mount() -> Self {
        let directory = TempDir::new().unwrap();
        let mut disk = Self::mount_at(directory.path().to_owned(), "4m");
        disk.directory = Some(directory);
        disk
    }

    pub fn mount_at(path: PathBuf, size: &str) -> Self {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .output()
            .expect("the tests need `mount` (Debian package `mount`)");
        let refusal = String::from_utf8_lossy(&mount.stderr);
        assert!(mount.status.success(), "a small disk is needed, run the tests as root or in `unshare -rm`: {refusal}");
        SmallDisk { path, directory: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills the disk with one file, which is returned.
    pub fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a process of a failed test may still use it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
        drop(self.directory.take());
    }
}
