//! The files of the tree, as git lists them, and complaints about them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file that is in the tree or would be after `git add`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct File {
    /// The path from the root of the tree, with `/` on every system.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Its content, unless it is not text.
    pub(crate) text: Option<String>,
}

/// A broken promise of the tree, and its remedy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    /// `path` or `path:line`.
    pub(crate) place: String,
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Tree {
    /// Reads the tree that this program was built from.
    ///
    /// Git is asked rather than the folder, because a build leaves many files beside the tree. It
    /// does not matter here who owns the folder, so git is told to ignore that.
    pub(crate) fn read() -> Result<Self, String> {
        let root = root();
        let listed = git(&[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])?;
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        // A file that was deleted and not yet staged is still listed.
        let files = paths.filter_map(|path| File::read(&root, path)).collect();
        Ok(Self { files })
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self
            .files
            .iter()
            .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)));
        texts.filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The content of the file at `path`.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)?
            .text
            .as_deref()
    }

    /// A tree of the given files, for tests.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| File {
            path: (*path).to_owned(),
            bytes: text.len() as u64,
            text: Some((*text).to_owned()),
        });
        Self {
            files: files.collect(),
        }
    }
}

impl File {
    fn read(root: &Path, path: &str) -> Option<Self> {
        let bytes = std::fs::read(root.join(path)).ok()?;
        Some(Self {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            text: String::from_utf8(bytes).ok(),
        })
    }
}

impl Offence {
    pub(crate) fn new(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n    remedy: {}",
            self.place, self.what, self.remedy
        )
    }
}

/// The output of git, run at the root of the tree.
pub(crate) fn git(arguments: &[&str]) -> Result<String, String> {
    let mut git = Command::new("git");
    git.current_dir(root())
        .args(["-c", "safe.directory=*"])
        .args(arguments);
    let output = git
        .output()
        .map_err(|error| format!("cannot run git, which lists the files of the tree: {error}"))?;
    if output.status.success() {
        String::from_utf8(output.stdout)
            .map_err(|_| "git lists a path that is not UTF-8".to_owned())
    } else {
        Err(format!(
            "git {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member
        .parent()
        .expect("xtask is a folder of the tree")
        .to_owned()
}
