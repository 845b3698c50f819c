//! The command line.

use std::time::Duration;

use crate::contestant::{self, Contestant};
use crate::workload;

/// What to measure, and how thoroughly.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// Names of workloads.
    pub(crate) workloads: Vec<String>,
    pub(crate) contestants: Vec<Contestant>,
    /// Only cells whose label contains one of these; all cells if there are none.
    pub(crate) cells: Vec<String>,
    /// How many rounds there are, each with servers started anew, and how many windows each has.
    pub(crate) rounds: usize,
    pub(crate) laps: usize,
    /// Whether to profile the servers, too.
    pub(crate) profile: bool,
    pub(crate) quick: bool,
    /// How long a server is loaded after its start, how long before each window, and how long a window
    /// is.
    pub(crate) warm_up: Duration,
    pub(crate) settle: Duration,
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
            cells: Vec::new(),
            rounds: 0,
            laps: 0,
            profile: false,
            quick: false,
            warm_up: Duration::from_millis(50),
            settle: Duration::from_millis(10),
            window: Duration::from_millis(40),
        };
        let (mut rounds, mut laps, mut window, mut settle) = (None, None, None, None);
        let mut names: Vec<String> = Vec::new();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value; --help explains"))
            };
            match word.as_str() {
                "--help" | "-h" => return Ok(Wish::Explain(usage())),
                "--quick" => arguments.quick = true,
                "--rounds" => rounds = Some(at_least_one(&word, &value()?)?),
                "--laps" => laps = Some(at_least_one(&word, &value()?)?),
                "--window" => window = Some(at_least_one(&word, &value()?)?),
                "--settle" => settle = Some(number(&word, &value()?)?),
                "--profile" => arguments.profile = true,
                "--cell" => arguments.cells.push(value()?),
                "--only" => {
                    names.extend(value()?.split(',').map(|name| name.trim().to_owned()));
                }
                option if option.starts_with('-') => {
                    return Err(format!("no such option: {option}\n\n{}", usage()));
                }
                name => arguments.workloads.push(name.to_owned()),
            }
        }
        if let Some(milliseconds) = window {
            arguments.window = Duration::from_millis(milliseconds as u64);
        }
        if let Some(milliseconds) = settle {
            arguments.settle = Duration::from_millis(milliseconds as u64);
        }
        // Six rounds are the fewest that give an interval with a confidence of 95 %.
        let usual = if arguments.quick { (6, 3) } else { (9, 10) };
        arguments.rounds = rounds.unwrap_or(usual.0);
        arguments.laps = laps.unwrap_or(usual.1);
        arguments.contestants = match names.as_slice() {
            [] => contestant::all(),
            names => contestant::named(names).map_err(|error| format!("{error}\n\n{}", usage()))?,
        };
        arguments.check()?;
        Ok(Wish::Run(arguments))
    }

    fn check(&mut self) -> Result<(), String> {
        let all = workload::all();
        let known: Vec<&str> = all.iter().map(|workload| workload.name()).collect();
        for name in &self.workloads {
            if !known.contains(&name.as_str()) {
                return Err(format!("no such workload: {name}\n\n{}", usage()));
            }
        }
        if self.workloads.is_empty() {
            self.workloads = known.into_iter().map(str::to_owned).collect();
        }
        let chosen = all.iter().filter(|one| self.wants(one.name()));
        let cells = chosen.flat_map(|workload| workload.cells(self.quick));
        let labels: Vec<String> = cells.map(|cell| cell.label).collect();
        for text in &self.cells {
            if !labels.iter().any(|label| label.contains(text)) {
                let labels = labels.join("\n  ");
                return Err(format!(
                    "no cell has `{text}` in its label; there are\n  {labels}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the workload of this name is to be measured.
    pub(crate) fn wants(&self, workload: &str) -> bool {
        self.workloads.iter().any(|name| name == workload)
    }

    /// Whether the cell of this label is to be measured.
    pub(crate) fn wants_cell(&self, label: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|text| label.contains(text))
    }
}

fn number(option: &str, text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{option} wants a number, and not {text}"))
}

fn at_least_one(option: &str, text: &str) -> Result<usize, String> {
    match number(option, text)? {
        0 => Err(format!("{option} wants a number from 1 on")),
        number => Ok(number),
    }
}

fn usage() -> String {
    let mut text = "usage: compare [WORKLOAD…] [--quick] [--only NAME,NAME…] [--cell TEXT]… \
                    [--profile]\n  [--rounds N] [--laps N] [--window MILLISECONDS] \
                    [--settle MILLISECONDS]\n\n\
                    In each of the rounds the servers are started, and then measured in turn, as many \
                    windows each\nas there are laps. --cell measures the cells whose label has that \
                    text in it, and may be given several\ntimes: --cell \"1 ×\" --cell \"64 × 64\". \
                    --profile counts system calls and samples where the time goes,\nas well, and \
                    needs `perf`.\n\nWorkloads, all unless some are named:\n"
        .to_owned();
    for workload in workload::all() {
        text += &format!("  {:<12} {}\n", workload.name(), workload.about());
    }
    text += "\nContestants, all unless --only names some. One that is named twice is compared with \
             itself, which\ntells how much a difference has to be; NAME@FOLDER is one whose server \
             was built before, and is there:\n";
    for contestant in contestant::all() {
        text += &format!("  {:<14} {}\n", contestant.name, contestant.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &Arguments) -> Vec<&str> {
        let contestants = arguments.contestants.iter();
        contestants.map(|contestant| contestant.name).collect()
    }

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
        assert_eq!(names(&arguments), ["tokio", "trio"]);
        assert_eq!(arguments.rounds, 2);
    }

    #[test]
    fn one_that_is_named_twice_takes_part_twice() {
        let Ok(Wish::Run(arguments)) = parse("--only trio,trio,monoio,compio,trio@.,trio") else {
            panic!("all of this exists");
        };
        let here = std::env::current_dir().unwrap();
        let here = here.file_name().unwrap().to_str().unwrap();
        let other = format!("trio@{here}");
        assert_eq!(
            names(&arguments),
            ["trio", "trio-2", "monoio", "compio", &other, "trio-3"]
        );
    }

    #[test]
    fn what_does_not_exist_is_an_error_that_lists_what_does() {
        for words in [
            "eco",
            "--only toko",
            "--only trio@/nowhere",
            "--round 3",
            "--rounds",
            "--rounds x",
            "--rounds 0",
            "--window 0",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn cells_are_those_that_have_one_of_the_texts_and_each_text_has_one() {
        let cells = |words: &[&str]| Arguments::parse(words.iter().map(|word| (*word).to_owned()));
        let Ok(Wish::Run(arguments)) = cells(&["echo", "--cell", "1 × 64", "--cell", "64 × 16"])
        else {
            panic!("both exist");
        };
        assert!(arguments.wants_cell("1 × 64 B") && arguments.wants_cell("64 × 16 KiB"));
        assert!(!arguments.wants_cell("64 × 1 KiB"));
        for words in [
            &["echo", "--cell", "nothing like it"][..],
            &["echo", "--cell", "1 × 64", "--cell", "yield"],
        ] {
            let Err(told) = cells(words) else {
                panic!("{words:?}");
            };
            assert!(told.contains("no cell has `") && told.contains("\n  1000 × 16 KiB"));
        }
    }
}
