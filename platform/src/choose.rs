//! Picks the driver: the one that was asked for, or the best that works here, and says why.

use std::ffi::OsStr;
use std::io;

use crate::driver::{Backend, Driver};
use crate::polling::Polling;
use crate::sim::Simulation;
#[cfg(target_os = "linux")]
use crate::uring::Uring;

/// What a run wants of its driver.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// The backend to use, or `None` for `TRIO_BACKEND` and then the best that works.
    pub backend: Option<Backend>,
    /// How many submissions the ring holds before it must be told; `None` for the default.
    pub entries: Option<u32>,
    /// The simulated world, which makes the backend the simulation.
    pub simulation: Option<Simulation>,
}

/// A driver, and why it is this one.
#[allow(missing_debug_implementations)] // a driver is a kernel, not a value
#[non_exhaustive]
pub struct Opened {
    /// The driver.
    pub driver: Box<dyn Driver>,
    /// Why it is not `io_uring`, if nobody asked for another.
    pub fallback: Option<io::Error>,
}

/// Opens the driver that `config` asks for, or else the one that the environment variable
/// `TRIO_BACKEND` names (`io_uring`, `polling`, or `auto`), or else `io_uring`, and `polling` where
/// that does not work.
///
/// # Errors
///
/// If what was asked for does not exist or does not work: then nothing else is tried. If nobody
/// asked for anything, only if `polling` does not work either.
pub fn open(config: &Config) -> io::Result<Opened> {
    if let Some(simulation) = &config.simulation {
        return Ok(Opened {
            driver: Box::new(simulation.driver()),
            fallback: None,
        });
    }
    let backend = match config.backend {
        Some(backend) => Some(backend),
        None => parse(std::env::var_os(VARIABLE).as_deref())?,
    };
    choose(
        backend,
        || open_ring(config),
        || Ok(Box::new(Polling::new()?)),
    )
}

/// Opens `backend`, or else the first of the two that works.
fn choose(
    backend: Option<Backend>,
    ring: impl FnOnce() -> io::Result<Box<dyn Driver>>,
    polling: impl FnOnce() -> io::Result<Box<dyn Driver>>,
) -> io::Result<Opened> {
    let (driver, fallback) = match backend {
        Some(Backend::IoUring) => (ring()?, None),
        Some(Backend::Polling) => (polling()?, None),
        Some(Backend::Simulation) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the simulation needs a world: set `simulation`, and leave `backend` alone",
            ));
        }
        None => match ring() {
            Ok(driver) => (driver, None),
            Err(reason) => match polling() {
                Ok(driver) => (driver, Some(reason)),
                // The ring's reason names a remedy, and often it is that of both.
                Err(error) => {
                    let text = format!("{reason}; and polling does not work either: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
            },
        },
    };
    Ok(Opened { driver, fallback })
}

#[cfg(target_os = "linux")]
fn open_ring(config: &Config) -> io::Result<Box<dyn Driver>> {
    Ok(Box::new(Uring::new(config.entries)?))
}

#[cfg(not(target_os = "linux"))]
fn open_ring(_config: &Config) -> io::Result<Box<dyn Driver>> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "io_uring is a part of Linux only",
    ))
}

const VARIABLE: &str = "TRIO_BACKEND";

/// The backend that the environment asks for.
fn parse(value: Option<&OsStr>) -> io::Result<Option<Backend>> {
    let Some(value) = value else {
        return Ok(None);
    };
    match value.to_str() {
        Some("" | "auto") => Ok(None),
        Some("io_uring") => Ok(Some(Backend::IoUring)),
        Some("polling") => Ok(Some(Backend::Polling)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{VARIABLE} is {value:?}: set it to io_uring, polling or auto"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_backend_or_none() {
        let parse = |value: &str| parse(Some(OsStr::new(value)));
        assert_eq!(parse("io_uring").unwrap(), Some(Backend::IoUring));
        assert_eq!(parse("polling").unwrap(), Some(Backend::Polling));
        assert_eq!(parse("auto").unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(super::parse(None).unwrap(), None);
    }

    #[test]
    fn an_unknown_backend_is_an_error_that_lists_the_known_ones() {
        let error = parse(Some(OsStr::new("iouring"))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "TRIO_BACKEND is \"iouring\": set it to io_uring, polling or auto"
        );
    }

    /// What is opened where the ring does not work.
    fn without_ring(backend: Option<Backend>) -> io::Result<Opened> {
        let refusal = || Err(io::Error::new(io::ErrorKind::PermissionDenied, "no ring"));
        choose(backend, refusal, || Ok(Box::new(Polling::new()?)))
    }

    #[test]
    fn polling_stands_in_for_a_ring_that_does_not_work_and_says_why() {
        let opened = without_ring(None).unwrap();
        assert_eq!(opened.driver.backend(), Backend::Polling);
        assert_eq!(opened.fallback.unwrap().to_string(), "no ring");
    }

    #[test]
    fn nothing_stands_in_for_what_was_asked_for() {
        let refusal = without_ring(Some(Backend::IoUring)).err().unwrap();
        assert_eq!(refusal.kind(), io::ErrorKind::PermissionDenied);
        let refusal = without_ring(Some(Backend::Simulation)).err().unwrap();
        assert_eq!(refusal.kind(), io::ErrorKind::InvalidInput);
        let opened = without_ring(Some(Backend::Polling)).unwrap();
        assert_eq!(opened.driver.backend(), Backend::Polling);
        assert!(opened.fallback.is_none());
    }

    #[test]
    fn where_nothing_works_the_error_has_both_reasons() {
        let refuse = |text| move || Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        let error = choose(None, refuse("no ring"), refuse("no poll"))
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let told = "no ring; and polling does not work either: no poll";
        assert_eq!(error.to_string(), told);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_ring_is_opened_where_it_works() {
        let config = Config {
            backend: Some(Backend::IoUring),
            ..Config::default()
        };
        let opened = open(&config).unwrap();
        assert_eq!(opened.driver.backend(), Backend::IoUring);
        assert!(opened.fallback.is_none());
    }
}
