//! A group of errors: splitting it, walking it, printing it as a tree.

use std::borrow::Cow;
use std::fmt;

use super::{Error, Repr};

pub(super) struct Group {
    pub(super) message: Cow<'static, str>,
    pub(super) errors: Vec<Error>,
}

impl Group {
    /// The group on one line: its message, and what its first leaves say. A log of errors usually
    /// shows just this line, and a mere number of errors would tell its reader nothing.
    pub(super) fn line<'a>(
        &self,
        mut leaves: impl Iterator<Item = &'a Error>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        self.head(f)?;
        for (index, leaf) in leaves.by_ref().take(LEAVES_SHOWN).enumerate() {
            let before = if index == 0 { ": " } else { "; " };
            let text = leaf.to_string();
            write!(f, "{before}{}", text.lines().next().unwrap_or_default())?;
        }
        match leaves.count() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        let errors = if count == 1 { "error" } else { "errors" };
        write!(f, "{} ({count} {errors})", self.message)
    }

    /// The group with every member indented under its message.
    pub(super) fn tree(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        for (index, error) in self.errors.iter().enumerate() {
            let last = index + 1 == self.errors.len();
            let (branch, bar) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            let text = format!("{error:?}");
            let mut lines = text.lines();
            write!(f, "\n{branch}{}", lines.next().unwrap_or_default())?;
            for line in lines {
                write!(f, "\n{bar}{line}")?;
            }
        }
        Ok(())
    }
}

/// How many leaves of a group its line has room for.
const LEAVES_SHOWN: usize = 3;

/// The leaves of an error, in order; see [`Error::leaves`].
#[derive(Debug)]
pub struct Leaves<'a> {
    left: Vec<&'a Error>,
}

impl<'a> Iterator for Leaves<'a> {
    type Item = &'a Error;

    fn next(&mut self) -> Option<&'a Error> {
        loop {
            let error = self.left.pop()?;
            match error.as_group() {
                Some(members) => self.left.extend(members.iter().rev()),
                None => return Some(error),
            }
        }
    }
}

impl Error {
    /// Every error in the tree that is not a group, in order; the error itself if it is not a
    /// group.
    pub fn leaves(&self) -> Leaves<'_> {
        Leaves { left: vec![self] }
    }

    /// Every error in the tree that is not a group, in order, by value; takes the tree apart.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use trio::{Error, TooSlow};
    ///
    /// let inner = Error::group("inner", vec![Error::from(TooSlow::new()), Error::msg("b")]);
    /// let leaves = Error::group("outer", vec![Error::msg("a"), inner]).into_leaves();
    /// let texts: Vec<String> = leaves.iter().map(ToString::to_string).collect();
    /// assert_eq!(texts, ["a", "too slow: the deadline has passed", "b"]);
    /// ```
    pub fn into_leaves(self) -> Vec<Self> {
        let mut left = vec![self];
        let mut leaves = Vec::new();
        while let Some(error) = left.pop() {
            match error.into_group() {
                Ok(members) => left.extend(members.into_iter().rev()),
                Err(leaf) => leaves.push(leaf),
            }
        }
        leaves
    }

    /// This error together with a later one, such as one from cleaning up, so that neither hides
    /// the other. If both are cancellations, the first is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use trio::Error;
    ///
    /// let both = Error::msg("disk full").and(Error::msg("cannot remove the file"));
    /// assert_eq!(both.leaves().count(), 2);
    /// ```
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        if self.is_cancelled() && later.is_cancelled() {
            return self;
        }
        Self::group("an error, and another after it", vec![self, later])
    }

    /// The leaves for which `matches` returns `true`, and the rest, each in the shape of the tree.
    ///
    /// A group that would be left with nothing disappears; one that is left with a single member
    /// stays a group, so that a tree that was not touched is the same afterwards.
    pub fn split(self, mut matches: impl FnMut(&Self) -> bool) -> (Option<Self>, Option<Self>) {
        self.split_by(&mut matches)
    }

    fn split_by(self, matches: &mut dyn FnMut(&Self) -> bool) -> (Option<Self>, Option<Self>) {
        let Repr::Group(group) = self.0 else {
            return if matches(&self) {
                (Some(self), None)
            } else {
                (None, Some(self))
            };
        };
        let mut yes = Vec::new();
        let mut no = Vec::new();
        for error in group.errors {
            let (matching, rest) = error.split_by(matches);
            yes.extend(matching);
            no.extend(rest);
        }
        let message = group.message;
        let regroup =
            |errors: Vec<Self>| (!errors.is_empty()).then(|| Self::group(message.clone(), errors));
        (regroup(yes), regroup(no))
    }

    /// The leaves for which `matches` returns `true`, in the shape of the tree; `None` if there are
    /// none.
    pub fn subgroup(self, matches: impl FnMut(&Self) -> bool) -> Option<Self> {
        self.split(matches).0
    }
}
