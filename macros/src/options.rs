//! The options in an attribute: `backend = "all", seeds = 100`.

use crate::tokens::{Complaint, Literal, Span, TokenStream, TokenTree, is};

/// A backend, by the name that the run reports for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    IoUring,
    Polling,
    Simulation,
}

/// The options of `#[trio::main]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MainOptions {
    pub(crate) backend: Option<Backend>,
}

/// The options of `#[trio::test]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestOptions {
    /// Several, one after another; if there are none, whatever works here.
    pub(crate) backends: Vec<Backend>,
    pub(crate) autojump: bool,
    pub(crate) seed: Option<u64>,
    /// How many seeds to try.
    pub(crate) seeds: Option<u64>,
}

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::IoUring, Self::Polling, Self::Simulation];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Polling => "polling",
            Self::Simulation => "simulation",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

impl MainOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self, Complaint> {
        let mut options = Self::default();
        for setting in settings(tokens, &["backend"])? {
            let backend =
                Backend::named(&setting.text()?).filter(|backend| *backend != Backend::Simulation);
            options.backend =
                Some(backend.ok_or_else(|| setting.refuse("\"io_uring\" or \"polling\""))?);
        }
        Ok(options)
    }
}

impl TestOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self, Complaint> {
        let mut options = Self::default();
        for setting in settings(tokens, &["backend", "clock", "seed", "seeds"])? {
            match setting.name.as_str() {
                "backend" => options.backends = setting.backends()?,
                "clock" => {
                    options.autojump = setting.text()? == "autojump";
                    if !options.autojump {
                        return Err(setting.refuse("\"autojump\""));
                    }
                }
                "seed" => options.seed = Some(setting.number()?),
                _ => {
                    let seeds = setting.number()?;
                    if seeds == 0 {
                        return Err(setting.refuse("how many seeds to try, at least 1"));
                    }
                    options.seeds = Some(seeds);
                }
            }
        }
        Ok(options)
    }
}

/// One `name = value`.
struct Setting {
    name: String,
    at: Span,
    value: Literal,
}

impl Setting {
    fn refuse(&self, expected: &str) -> Complaint {
        Complaint::new(self.value.span(), format!("`{}` is {expected}", self.name))
    }

    fn backends(&self) -> Result<Vec<Backend>, Complaint> {
        let text = self.text()?;
        if text == "all" {
            return Ok(Backend::ALL.to_vec());
        }
        let backend = Backend::named(&text);
        let expected = "\"io_uring\", \"polling\", \"simulation\" or \"all\"";
        Ok(vec![backend.ok_or_else(|| self.refuse(expected))?])
    }

    /// The value as text. No option has a value that needs an escape.
    fn text(&self) -> Result<String, Complaint> {
        let literal = self.value.to_string();
        let text = literal
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        text.map(str::to_owned)
            .ok_or_else(|| self.refuse("a name in quotes"))
    }

    fn number(&self) -> Result<u64, Complaint> {
        let literal = self.value.to_string().replace('_', "");
        let digits = literal.strip_suffix("u64").unwrap_or(&literal);
        let number = match digits.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => digits.parse(),
        };
        number.map_err(|_| self.refuse("a number of at most 64 bits"))
    }
}

/// The settings in `tokens`, each at most once and each one of `known`.
fn settings(tokens: TokenStream, known: &[&str]) -> Result<Vec<Setting>, Complaint> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut tokens = tokens.into_iter();
    while let Some(first) = tokens.next() {
        let setting = setting(&first, &mut tokens, known)?;
        if settings.iter().any(|earlier| earlier.name == setting.name) {
            return Err(Complaint::new(
                setting.at,
                format!("`{}` is set twice", setting.name),
            ));
        }
        settings.push(setting);
        if let Some(comma) = tokens.next().filter(|token| !is(token, ",")) {
            return Err(Complaint::new(
                comma.span(),
                "a comma stands between two options",
            ));
        }
    }
    Ok(settings)
}

fn setting(
    first: &TokenTree,
    rest: &mut impl Iterator<Item = TokenTree>,
    known: &[&str],
) -> Result<Setting, Complaint> {
    let (name, at) = (first.to_string(), first.span());
    if !known.contains(&name.as_str()) {
        return Err(Complaint::new(
            at,
            format!(
                "there is no option `{name}`; there is: {}",
                known.join(", ")
            ),
        ));
    }
    match (rest.next(), rest.next()) {
        (Some(sign), Some(TokenTree::Literal(value))) if is(&sign, "=") => {
            Ok(Setting { name, at, value })
        }
        _ => Err(Complaint::new(
            at,
            format!(
                "an option has a literal value, such as `{}`",
                example(&name)
            ),
        )),
    }
}

/// An example setting of the option `name`.
fn example(name: &str) -> &'static str {
    match name {
        "backend" => r#"backend = "polling""#,
        "clock" => r#"clock = "autojump""#,
        "seed" => "seed = 7",
        _ => "seeds = 100",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main_options(text: &str) -> Result<MainOptions, String> {
        MainOptions::parse(text.parse().expect("the test gives tokens"))
            .map_err(|complaint| complaint.message)
    }

    fn test_options(text: &str) -> Result<TestOptions, String> {
        TestOptions::parse(text.parse().expect("the test gives tokens"))
            .map_err(|complaint| complaint.message)
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = test_options(text).expect_err("this must be refused");
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(main_options(""), Ok(MainOptions::default()));
        assert_eq!(test_options(""), Ok(TestOptions::default()));
    }

    #[test]
    fn a_program_chooses_its_backend() {
        let polling = MainOptions {
            backend: Some(Backend::Polling),
        };
        assert_eq!(main_options("backend = \"polling\""), Ok(polling));
        for text in ["backend = \"simulation\"", "backend = \"all\"", "seed = 7"] {
            assert!(main_options(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_test_takes_all_options_at_once() {
        let options = TestOptions {
            backends: Backend::ALL.to_vec(),
            autojump: true,
            seed: Some(0x10),
            seeds: Some(1000),
        };
        let text = "backend = \"all\", clock = \"autojump\", seed = 0x10, seeds = 1_000u64,";
        assert_eq!(test_options(text), Ok(options));
    }

    #[test]
    fn wrong_options_are_refused_with_the_right_ones() {
        check_refused(
            "color = \"red\"",
            "there is no option `color`; there is: backend, clock, seed, seeds",
        );
        check_refused("\"backend\"", "there is no option");
        check_refused(
            "backend = \"epoll\"",
            "`backend` is \"io_uring\", \"polling\", \"simulation\" or \"all\"",
        );
        check_refused("backend = 7", "`backend` is a name in quotes");
        check_refused("clock = \"mock\"", "`clock` is \"autojump\"");
        check_refused("seed = \"7\"", "`seed` is a number");
        check_refused(
            "seed = 18446744073709551616",
            "`seed` is a number of at most 64 bits",
        );
        check_refused("seeds = 0", "at least 1");
        check_refused("seed", "an option has a literal value, such as `seed = 7`");
        check_refused("seed 7", "an option has a literal value");
        check_refused("seed = -7", "an option has a literal value");
        check_refused(
            "clock = MockClock::autojump()",
            r#"an option has a literal value, such as `clock = "autojump"`"#,
        );
        check_refused("seed = 7, seed = 8", "`seed` is set twice");
        check_refused("seed = 7 seeds = 8", "a comma stands between two options");
    }
}
