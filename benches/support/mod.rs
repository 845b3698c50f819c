//! A small harness: rows of a table, measured in rounds that take turns, each row by its median.
//!
//! In one round every row is measured once, so that whatever else the machine does falls on all
//! of them alike. A row that is the difference of two others is taken within each round, for the
//! same reason. Beside the median stand the quartiles: if these are far apart, the machine was busy.
//!
//! `cargo bench` passes `--bench`. Without it (`cargo test --benches`) each row is measured once at
//! toy size, which checks that the work is done and keeps the benches from rotting.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

/// Rounds of a full measurement, unless `--rounds` says otherwise.
const ROUNDS: usize = 15;

/// How much of the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// What the figures are taken from.
    Full,
    /// What instructions are counted of: enough that what is done once does not weigh.
    Counted,
    /// Enough to see that it works.
    Toy,
}

impl Scale {
    /// `full`, or fewer.
    pub(crate) fn of(self, full: u32) -> u32 {
        match self {
            Self::Full => full,
            Self::Counted => full.min(200),
            Self::Toy => full.min(20),
        }
    }

    /// The same for what is there before anything is measured, and makes it harder.
    pub(crate) fn of_surroundings(self, full: u32) -> u32 {
        match self {
            Self::Counted => full.min(10_000),
            Self::Full | Self::Toy => self.of(full),
        }
    }
}

/// Time on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Not inlined, as little as [`Stopwatch::stop`]: callgrind knows them by name.
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
    #[inline(never)]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// What `operations` operations have taken since the start.
    #[inline(never)]
    pub(crate) fn stop(self, operations: u32) -> Sample {
        Sample {
            elapsed: self.0.elapsed(),
            operations,
        }
    }
}

/// What a number of operations took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    elapsed: Duration,
    operations: u32,
}

impl Sample {
    pub(crate) fn nanoseconds(self) -> f64 {
        self.elapsed.as_secs_f64() * 1e9 / f64::from(self.operations)
    }
}

/// A line of the table.
pub(crate) struct Row {
    name: String,
    /// Nanoseconds that the operation is meant to take at most.
    aim: Option<f64>,
    value: Value,
}

enum Value {
    Measured(Box<dyn Fn(Scale) -> Sample>),
    /// One row less another, by so many steps.
    Difference {
        of: String,
        from: String,
        steps: u32,
    },
}

impl Row {
    /// An operation whose time is measured.
    pub(crate) fn new(
        name: impl Into<String>,
        measure: impl Fn(Scale) -> Sample + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            aim: None,
            value: Value::Measured(Box::new(measure)),
        }
    }

    /// What one step adds, of the `steps` steps by which the row `of` is more than the row `from`.
    pub(crate) fn difference(name: impl Into<String>, of: &str, from: &str, steps: u32) -> Self {
        Self {
            name: name.into(),
            aim: None,
            value: Value::Difference {
                of: of.into(),
                from: from.into(),
                steps,
            },
        }
    }

    /// The nanoseconds that the operation is meant to take at most.
    pub(crate) fn aim(mut self, nanoseconds: f64) -> Self {
        self.aim = Some(nanoseconds);
        self
    }

    fn measure(&self, scale: Scale, round: &HashMap<&str, f64>) -> f64 {
        match &self.value {
            Value::Measured(measure) => {
                let sample = measure(scale);
                if scale == Scale::Counted {
                    println!("{} {}", sample.operations, self.name);
                }
                sample.nanoseconds()
            }
            Value::Difference { of, from, steps } => {
                (round[of.as_str()] - round[from.as_str()]) / f64::from(*steps)
            }
        }
    }

    /// Whether this row is to be measured for `filter`.
    fn is_wanted(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|filter| self.name.contains(filter))
    }
}

/// What the command line asks for.
pub(crate) struct Arguments {
    pub(crate) scale: Scale,
    filter: Option<String>,
    rounds: usize,
}

impl Arguments {
    pub(crate) fn parse() -> Self {
        let mut parsed = Self {
            scale: Scale::Toy,
            filter: None,
            rounds: ROUNDS,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => parsed.scale = Scale::Full,
                "--counted" => parsed.scale = Scale::Counted,
                "--rounds" => {
                    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
                    parsed.rounds = rounds.expect("--rounds takes a number");
                }
                // What `cargo test` may pass on to every binary, such as `--quiet`.
                flag if flag.starts_with('-') => {}
                filter => parsed.filter = Some(filter.to_owned()),
            }
        }
        parsed
    }
}

/// Runs `main`, which must not fail.
pub(crate) fn run<T>(main: impl Future<Output = trio::Result<T>>) -> T {
    trio::run(main).expect("no operation of a bench fails")
}

/// Measures every row that is asked for, and prints the table.
pub(crate) fn measure(arguments: &Arguments, rows: &[Row]) {
    let rounds = match arguments.scale {
        Scale::Full => arguments.rounds,
        Scale::Counted | Scale::Toy => 1,
    };
    let filter = arguments.filter.as_deref();
    let wanted: Vec<&Row> = rows.iter().filter(|row| row.is_wanted(filter)).collect();
    // A difference needs the rows it is taken from, whether they are asked for or not.
    let needed = |row: &Row| {
        wanted.iter().any(|other| {
            other.name == row.name
                || matches!(&other.value, Value::Difference { of, from, .. }
                    if *of == row.name || *from == row.name)
        })
    };
    let measured: Vec<&Row> = rows.iter().filter(|row| needed(row)).collect();
    let mut figures: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..rounds {
        let mut round = HashMap::new();
        for row in &measured {
            let figure = row.measure(arguments.scale, &round);
            round.insert(row.name.as_str(), figure);
            figures.entry(&row.name).or_default().push(figure);
        }
    }
    if arguments.scale == Scale::Full {
        print(&wanted, &mut figures);
    }
}

fn print(rows: &[&Row], figures: &mut HashMap<&str, Vec<f64>>) {
    let [name, median, quartiles, aim] = ["ns an operation", "median", "quartiles", "aim"];
    println!("{name:<56} {median:>9} {quartiles:>19} {aim:>7}");
    for row in rows {
        let figures = figures.get_mut(row.name.as_str()).expect("it was measured");
        figures.sort_by(f64::total_cmp);
        let at = |quarter: usize| figures[(figures.len() - 1) * quarter / 4];
        let quartiles = format!("{:.1} – {:.1}", at(1), at(3));
        let aim = match row.aim {
            Some(aim) if at(2) > aim => format!("{aim:.0} !"),
            Some(aim) => format!("{aim:.0}  "),
            None => String::new(),
        };
        println!("{:<56} {:>9.1} {quartiles:>19} {aim:>7}", row.name, at(2));
    }
}
