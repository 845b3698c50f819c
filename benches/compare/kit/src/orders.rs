//! The orders of a server program: a job, and options by name.

use std::collections::BTreeMap;

/// The command line of a server program: `JOB [NAME=VALUE…]`.
#[derive(Clone, Debug)]
pub struct Orders {
    job: String,
    options: BTreeMap<String, String>,
}

impl Orders {
    /// Reads the arguments of this process; ends it if they make no sense.
    pub fn from_arguments() -> Self {
        let mut arguments = std::env::args().skip(1);
        let Some(job) = arguments.next() else {
            eprintln!("usage: JOB [NAME=VALUE…]; the harness knows the jobs");
            std::process::exit(2);
        };
        let options = arguments.filter_map(|argument| {
            let (name, value) = argument.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Self {
            job,
            options: options.collect(),
        }
    }

    /// The job to do.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// An option, or an empty text.
    pub fn text(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// An option that is a number, or its default.
    pub fn number(&self, name: &str, default: usize) -> usize {
        let number = self.options.get(name).map(|value| value.parse());
        match number {
            None => default,
            Some(Ok(number)) => number,
            Some(Err(_)) => {
                eprintln!("{name} is not a number");
                std::process::exit(2);
            }
        }
    }

    /// Ends the process because this program does not have such a job: the harness leaves the cell
    /// out.
    pub fn refuse(&self, reason: &str) -> ! {
        println!("refused {}, {reason}", self.job);
        std::process::exit(3);
    }
}
