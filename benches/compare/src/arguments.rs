//! The command line.

use std::time::Duration;

use crate::{contestant, workload};

/// What to measure, and how thoroughly.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// Names of workloads.
    pub(crate) workloads: Vec<String>,
    /// Names of contestants.
    pub(crate) contestants: Vec<String>,
    /// Cells whose label has this in it.
    pub(crate) cell: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    /// How long a server is loaded before measuring, and how long it is measured.
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
}

/// What the command line asks for.
pub(crate) enum Wish {
    Run(Arguments),
    Explain(String),
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Wish, String> {
        let mut arguments = Self {
            workloads: Vec::new(),
            contestants: Vec::new(),
            cell: None,
            rounds: 0,
            quick: false,
            warm_up: Duration::from_millis(200),
            window: Duration::from_millis(1000),
        };
        let mut rounds = None;
        let mut window = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(Wish::Explain(usage())),
                "--quick" => arguments.quick = true,
                "--rounds" => rounds = Some(number(&value()?)?),
                "--window" => window = Some(number(&value()?)?),
                "--cell" => arguments.cell = Some(value()?),
                "--only" => {
                    let names = value()?;
                    let names = names.split(',').map(str::to_owned);
                    arguments.contestants.extend(names);
                }
                option if option.starts_with('-') => {
                    return Err(format!("no such option: {option}\n\n{}", usage()));
                }
                name => arguments.workloads.push(name.to_owned()),
            }
        }
        if arguments.quick {
            arguments.warm_up = Duration::from_millis(100);
            arguments.window = Duration::from_millis(250);
        }
        if let Some(milliseconds) = window {
            arguments.window = Duration::from_millis(milliseconds as u64);
        }
        arguments.rounds = rounds.unwrap_or(if arguments.quick { 3 } else { 7 }).max(1);
        arguments.check()?;
        Ok(Wish::Run(arguments))
    }

    fn check(&mut self) -> Result<(), String> {
        let known = workload::all();
        let known: Vec<&str> = known.iter().map(|workload| workload.name()).collect();
        for name in &self.workloads {
            if !known.contains(&name.as_str()) {
                return Err(format!("no such workload: {name}\n\n{}", usage()));
            }
        }
        if self.workloads.is_empty() {
            self.workloads = known.into_iter().map(str::to_owned).collect();
        }
        let field = contestant::all();
        let known: Vec<&str> = field.iter().map(|contestant| contestant.name).collect();
        for name in &self.contestants {
            if !known.contains(&name.as_str()) {
                return Err(format!("no such contestant: {name}\n\n{}", usage()));
            }
        }
        if self.contestants.is_empty() {
            self.contestants = known.into_iter().map(str::to_owned).collect();
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn usage() -> String {
    let mut text = "usage: compare [WORKLOAD…] [--rounds N] [--quick] [--only NAME,NAME…] \
                    [--cell TEXT] [--window MILLISECONDS]\n\nWorkloads, all unless some are named:\n"
        .to_owned();
    for workload in workload::all() {
        text += &format!("  {:<12} {}\n", workload.name(), workload.about());
    }
    text += "\nContestants, all unless --only names some:\n";
    for contestant in contestant::all() {
        text += &format!("  {:<14} {}\n", contestant.name, contestant.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Wish, String> {
        Arguments::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        let Ok(Wish::Run(arguments)) = parse("") else {
            panic!("nothing wrong with nothing");
        };
        assert_eq!(arguments.workloads.len(), workload::all().len());
        assert_eq!(arguments.contestants.len(), contestant::all().len());
        let Ok(Wish::Run(arguments)) = parse("echo --rounds 2 --only tokio,trio --quick") else {
            panic!("all of this exists");
        };
        assert_eq!(arguments.workloads, ["echo"]);
        assert_eq!(arguments.contestants, ["tokio", "trio"]);
        assert_eq!(arguments.rounds, 2);
    }

    #[test]
    fn what_does_not_exist_is_an_error_that_lists_what_does() {
        for words in ["eco", "--only toko", "--round 3", "--rounds", "--rounds x"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
