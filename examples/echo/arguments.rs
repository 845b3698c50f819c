//! The command line.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use trio::{Backend, Builder};

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
An echo server: every connection gets back what it sends, until Ctrl-C or SIGTERM.

usage: echo [--tcp ADDR]... [--backend NAME] [--workers N] [--grace SECONDS] [--demo SECONDS]

  --tcp ADDR       listen here; may be given several times; port 0 takes a free port
                   (127.0.0.1:7000 unless told otherwise, and 127.0.0.1:0 in a demo)
  --backend NAME   io_uring, polling, or auto: the first of them that works, unless the
                   environment variable TRIO_BACKEND names one (auto unless told otherwise)
  --workers N      so many threads, each with a run of its own, share the ports (1)
  --grace SECONDS  how long connections may go on after the first signal (0.5); a second
                   signal cuts it short
  --demo SECONDS   let 64 clients send and check for so long, print a table, and end
  --help           print this
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Where to listen.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The backend, or `None` for the best.
    pub(crate) backend: Option<Backend>,
    /// How many threads serve.
    pub(crate) workers: NonZeroUsize,
    /// How long connections may go on after the first signal.
    pub(crate) grace: Duration,
    /// How long the demo takes, if there is one.
    pub(crate) demo: Option<Duration>,
}

impl Arguments {
    /// The arguments in `words`; `None` if they ask for help.
    ///
    /// # Errors
    ///
    /// What is wrong with them, and what was expected.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut arguments = Self {
            addresses: Vec::new(),
            backend: None,
            workers: NonZeroUsize::MIN,
            grace: Duration::from_millis(500),
            demo: None,
        };
        let mut words = words.into_iter().map(|word| {
            word.into_string()
                .map_err(|word| format!("the argument {word:?} is not valid Unicode"))
        });
        while let Some(word) = words.next().transpose()? {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if matches!(option, "--help" | "-h") {
                return Ok(None);
            }
            if !OPTIONS.contains(&option) {
                let known = OPTIONS.join(", ");
                return Err(format!(
                    "unknown argument {word:?}: expected one of {known}"
                ));
            }
            let value = match attached {
                Some(value) => Some(value),
                None => words.next().transpose()?,
            };
            arguments.set(option, &value.unwrap_or_default())?;
        }
        if arguments.addresses.is_empty() {
            let port = if arguments.demo.is_some() { 0 } else { 7000 };
            arguments.addresses = vec![(Ipv4Addr::LOCALHOST, port).into()];
        }
        Ok(Some(arguments))
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "--tcp" => {
                let wanted = "an address such as 127.0.0.1:7000 or [::1]:0";
                self.addresses.push(parse(option, value, wanted)?);
            }
            "--backend" => {
                self.backend = match value {
                    "auto" => None,
                    "io_uring" => Some(Backend::IoUring),
                    "polling" => Some(Backend::Polling),
                    _ => return Err(refusal(option, value, "auto, io_uring or polling")),
                }
            }
            "--workers" => {
                self.workers = parse(option, value, "a number of threads, at least 1")?;
            }
            "--grace" => self.grace = seconds(option, value)?,
            _ => self.demo = Some(seconds(option, value)?),
        }
        Ok(())
    }

    /// A builder for a run on the requested backend.
    pub(crate) fn builder(&self) -> Builder {
        match self.backend {
            Some(backend) => Builder::new().backend(backend),
            None => Builder::new(),
        }
    }
}

fn parse<T: FromStr>(option: &str, value: &str, wanted: &str) -> Result<T, String> {
    value.parse().map_err(|_| refusal(option, value, wanted))
}

fn seconds(option: &str, value: &str) -> Result<Duration, String> {
    let wanted = "a number of seconds such as 5 or 0.5";
    let number: f64 = parse(option, value, wanted)?;
    Duration::try_from_secs_f64(number).map_err(|_| refusal(option, value, wanted))
}

fn refusal(option: &str, value: &str, wanted: &str) -> String {
    match value {
        "" => format!("{option} expects {wanted}"),
        _ => format!("{option} expects {wanted}, not {value:?}"),
    }
}

const OPTIONS: [&str; 5] = ["--tcp", "--backend", "--workers", "--grace", "--demo"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn nothing_said_is_one_worker_on_the_usual_port() {
        let expected = Arguments {
            addresses: vec![([127, 0, 0, 1], 7000).into()],
            backend: None,
            workers: NonZeroUsize::MIN,
            grace: Duration::from_millis(500),
            demo: None,
        };
        assert_eq!(parse(""), Ok(Some(expected)));
    }

    #[test]
    fn everything_can_be_said() {
        let line =
            "--tcp [::1]:0 --backend=polling --workers 3 --grace 0 --demo 1.5 --tcp 1.2.3.4:5";
        let expected = Arguments {
            addresses: vec!["[::1]:0".parse().unwrap(), ([1, 2, 3, 4], 5).into()],
            backend: Some(Backend::Polling),
            workers: NonZeroUsize::new(3).unwrap(),
            grace: Duration::ZERO,
            demo: Some(Duration::from_millis(1500)),
        };
        assert_eq!(parse(line), Ok(Some(expected)));
        assert_eq!(parse("--backend auto").unwrap().unwrap().backend, None);
        assert_eq!(parse("--tcp 1.2.3.4:5 --help"), Ok(None));
    }

    #[test]
    fn a_demo_takes_a_free_port_unless_told_otherwise() {
        let addresses = |line| parse(line).unwrap().unwrap().addresses;
        assert_eq!(addresses("--demo 1"), [([127, 0, 0, 1], 0).into()]);
        assert_eq!(
            addresses("--demo 1 --tcp 1.2.3.4:5"),
            [([1, 2, 3, 4], 5).into()]
        );
    }

    #[test]
    fn a_mistake_is_met_with_what_was_expected() {
        let mistake = |line: &str| parse(line).unwrap_err();
        assert_eq!(
            mistake("--tcp localhost"),
            "--tcp expects an address such as 127.0.0.1:7000 or [::1]:0, not \"localhost\""
        );
        assert_eq!(
            mistake("--backend epoll"),
            "--backend expects auto, io_uring or polling, not \"epoll\""
        );
        assert_eq!(
            mistake("--workers 0"),
            "--workers expects a number of threads, at least 1, not \"0\""
        );
        for value in ["-1", "nan", "inf", "1e300", "soon"] {
            assert_eq!(
                mistake(&format!("--grace {value}")),
                format!("--grace expects a number of seconds such as 5 or 0.5, not \"{value}\"")
            );
        }
        assert_eq!(
            mistake("--demo"),
            "--demo expects a number of seconds such as 5 or 0.5"
        );
        assert_eq!(
            mistake("--udp 1"),
            "unknown argument \"--udp\": expected one of --tcp, --backend, --workers, --grace, --demo"
        );
    }
}
