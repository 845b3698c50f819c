//! Each guarantee has a test, and each numbered test its guarantee.
//!
//! `docs/semantics.md` states the guarantees, each on a line that opens with its number:
//!
//! ```text
//! **N7.** A nursery reports all errors of its children, in the order of their arrival.
//! **N12.** A nursery is bound to its task. (not in Rust: the compiler sees to it)
//! ```
//!
//! A guarantee is tested by a function whose name opens with the number in lower case, such as
//! `n7_errors_come_in_order_of_arrival`, or by a file of that name in `tests/ui`, which must not
//! compile. In a folder of tests every function counts, because a macro may make it a test;
//! elsewhere only a function with a test attribute counts.
//!
//! `docs/trio-tests.md` has a row for each test of Trio's. Its second cell names the tests here that
//! show the same, or says why there is none:
//!
//! ```text
//! | `test_child_crash_basic` | `n7_a_single_error_is_a_group_of_one`, `n3_…` |
//! | `test_Nursery_init`      | not in Rust: there is no constructor          |
//! ```
//!
//! `docs/traps.md` has a paragraph for each mistake that others have made. It opens with its
//! number, and names the tests that would catch the mistake here, or says that it belongs to a
//! later part:
//!
//! ```text
//! **9. Not to begin a child in a cancelled nursery.** It runs, up to its first cancel point (L4).
//! Shown by `l4_a_child_of_a_cancelled_nursery_runs_to_its_first_checkpoint`.
//! ```

use std::collections::BTreeMap;

use crate::source::{Source, Token};
use crate::tree::{Offence, Tree};

const DOCUMENT: &str = "docs/semantics.md";

/// What became of each test of Trio's.
const PORTED: &str = "docs/trio-tests.md";

/// What others got wrong, and how many of these there are.
const TRAPS: &str = "docs/traps.md";
const TRAPS_COUNT: usize = 35;

/// A guarantee as the document states it.
#[derive(Debug)]
struct Guarantee {
    line: usize,
    /// Whether the document says that there is nothing to test, because Rust has no such thing.
    absent: bool,
}

/// Compares the document with the tests, both ways.
///
/// # Errors
///
/// If there is no document.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Offence>, String> {
    let document = tree
        .text(DOCUMENT)
        .ok_or_else(|| format!("there is no {DOCUMENT}: it states what is tested"))?;
    let (guarantees, mut offences) = guarantees(document);
    let tests = tests(tree);
    for (number, guarantee) in &guarantees {
        let place = format!("{DOCUMENT}:{}", guarantee.line);
        let prefix = format!("{}_", number.to_lowercase());
        let tested = tests.iter().find(|(name, _)| name.starts_with(&prefix));
        match tested {
            None if !guarantee.absent => offences.push(Offence::new(
                place,
                format!("{number} has no test"),
                format!(
                    "write one and name it `{prefix}…`, or mark the line `(not in Rust: reason)`"
                ),
            )),
            Some((name, test)) if guarantee.absent => offences.push(Offence::new(
                place,
                format!("{number} is said not to be in Rust, and {test} tests it as `{name}`"),
                "take the mark from the line, or the number from the test",
            )),
            _ => {}
        }
    }
    for (name, place) in &tests {
        let Some(number) = number_of(name).filter(|number| !guarantees.contains_key(number)) else {
            continue;
        };
        if guarantees
            .keys()
            .any(|known| family(known) == family(&number))
        {
            offences.push(Offence::new(
                place.clone(),
                format!("`{name}` tests {number}, which {DOCUMENT} does not state"),
                format!("state it there on a line that opens with `**{number}.**`, or name the test otherwise"),
            ));
        }
    }
    offences.extend(ported(tree, &tests));
    offences.extend(traps(tree.text(TRAPS), &tests));
    Ok(offences)
}

/// The traps that have neither a test nor a reason, name a test that does not exist, or are out of
/// order.
fn traps(page: Option<&str>, tests: &[(String, String)]) -> Vec<Offence> {
    let Some(page) = page else {
        return Vec::new();
    };
    let (mut offences, mut count, mut line) = (Vec::new(), 0, 1);
    for paragraph in page.split("\n\n") {
        let place = format!("{TRAPS}:{line}");
        line += paragraph.matches('\n').count() + 2;
        let text = paragraph.trim_start();
        let number = text
            .strip_prefix("**")
            .and_then(|rest| rest.split_once(". "));
        let Some(Ok(number)) = number.map(|(number, _)| number.parse::<usize>()) else {
            continue;
        };
        count += 1;
        if number != count {
            offences.push(Offence::new(
                place.clone(),
                format!("trap {number} stands in the place of trap {count}"),
                "keep them in their order, with no number left out or used twice",
            ));
        }
        let shown = text.split_once("Shown by ").map_or("", |(_, shown)| shown);
        if shown.is_empty() && !text.contains("Later part: ") {
            offences.push(Offence::new(
                place.clone(),
                format!("trap {number} has neither a test nor a reason"),
                "name the tests after `Shown by`, or say `Later part: …`",
            ));
        }
        for ours in shown.split('`').skip(1).step_by(2) {
            if !tests.iter().any(|(name, _)| name == ours) {
                offences.push(Offence::new(
                    place.clone(),
                    format!("there is no test `{ours}`"),
                    "name the one that would find this mistake",
                ));
            }
        }
    }
    if count < TRAPS_COUNT {
        offences.push(Offence::new(
            TRAPS.to_owned(),
            format!("there are {count} traps, and not {TRAPS_COUNT}"),
            "put back what was left out at the end",
        ));
    }
    offences
}

/// The rows of the table of Trio's tests that name a test that does not exist, or nothing at all.
fn ported(tree: &Tree, tests: &[(String, String)]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (index, line) in tree.text(PORTED).unwrap_or_default().lines().enumerate() {
        let row = line.strip_prefix("| `");
        let Some((theirs, cell)) = row.and_then(|row| row.split_once("` |")) else {
            continue;
        };
        let place = format!("{PORTED}:{}", index + 1);
        let mut cell = cell.trim().trim_end_matches('|').trim_end();
        if cell.is_empty() {
            offences.push(Offence::new(
                place.clone(),
                format!("`{theirs}` has neither a test nor a reason"),
                "name the test here that shows the same, or say why there is none",
            ));
        }
        let mut named = Vec::new();
        while let Some((ours, rest)) = cell.strip_prefix('`').and_then(|cell| cell.split_once('`'))
        {
            named.push(ours);
            let Some(next) = rest.strip_prefix(", ") else {
                cell = rest;
                break;
            };
            cell = next;
        }
        // A reason may contain code; a word that opens with a number is a test, and is named in
        // full.
        let in_reason = cell.split('`').skip(1).step_by(2);
        named.extend(in_reason.filter(|word| number_of(word).is_some()));
        for ours in named {
            if !tests.iter().any(|(name, _)| name == ours) {
                offences.push(Offence::new(
                    place.clone(),
                    format!("there is no test `{ours}`"),
                    "name the one that shows what this one of Trio's does",
                ));
            }
        }
    }
    offences
}

/// The guarantees by number, and the faults of the document itself.
fn guarantees(document: &str) -> (BTreeMap<String, Guarantee>, Vec<Offence>) {
    let (mut guarantees, mut offences) = (BTreeMap::new(), Vec::new());
    for (index, text) in document.lines().enumerate() {
        let Some((number, statement)) = text
            .strip_prefix("**")
            .and_then(|rest| rest.split_once(".**"))
        else {
            continue;
        };
        if !is_number(number) {
            continue;
        }
        let (line, place) = (index + 1, format!("{DOCUMENT}:{}", index + 1));
        let mark = statement.split_once("(not in Rust");
        let reason = mark.map(|(_, rest)| rest.strip_prefix(": ").unwrap_or(")"));
        if reason.is_some_and(|reason| reason.starts_with(')')) {
            let remedy = "write `(not in Rust: reason)`";
            offences.push(Offence::new(
                place.clone(),
                format!("{number} does not say why it is not in Rust"),
                remedy,
            ));
        }
        let guarantee = Guarantee {
            line,
            absent: mark.is_some(),
        };
        if guarantees.insert(number.to_owned(), guarantee).is_some() {
            let remedy = "give one of them a number of its own";
            offences.push(Offence::new(
                place,
                format!("{number} is stated twice"),
                remedy,
            ));
        }
    }
    (guarantees, offences)
}

/// The name of every test, and its file.
fn tests(tree: &Tree) -> Vec<(String, String)> {
    let mut tests = Vec::new();
    for (path, text) in tree.rust() {
        if let Some(name) = path
            .strip_prefix("tests/ui/")
            .and_then(|name| name.strip_suffix(".rs"))
        {
            tests.push((name.to_owned(), path.to_owned()));
            continue;
        }
        let everywhere = path.split('/').any(|part| part == "tests");
        let source = Source::scan(text);
        for (index, pair) in source.tokens.windows(2).enumerate() {
            if pair[0].text == "fn" && (everywhere || is_marked(&source.tokens[..index])) {
                tests.push((pair[1].text.to_owned(), format!("{path}:{}", pair[1].line)));
            }
        }
    }
    tests
}

/// Whether the attributes just before a function include one that ends in `test`, as in
/// `#[trio::test(seed = 7)]`. The tokens before belong to another item, which ends in `}` or `;`.
fn is_marked(before: &[Token<'_>]) -> bool {
    let item = before
        .rsplit(|token| matches!(token.text, "}" | ";" | "{"))
        .next()
        .unwrap_or_default();
    item.windows(2)
        .any(|pair| pair[0].text == "test" && matches!(pair[1].text, "]" | "("))
}

/// The number that a name opens with: `N7` of `n7_errors_come_in_order`.
fn number_of(name: &str) -> Option<String> {
    let (number, _) = name.split_once('_')?;
    let number = number.to_uppercase();
    is_number(&number).then_some(number)
}

/// One or two capitals and digits.
fn is_number(text: &str) -> bool {
    let letters = family(text);
    let digits = &text[letters.len()..];
    matches!(letters.len(), 1..=2)
        && !digits.is_empty()
        && digits.chars().all(|sign| sign.is_ascii_digit())
}

/// The letters of a number. Names such as `u8_is_read` are in no family that the document knows.
fn family(number: &str) -> &str {
    let end = number
        .find(|sign: char| !sign.is_ascii_uppercase())
        .unwrap_or(number.len());
    &number[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offences in a document and a file of tests, as `place: what`.
    #[track_caller]
    fn check_files(document: &str, files: &[(&str, &str)], expected: &[&str]) {
        let files = [&[(DOCUMENT, document)], files].concat();
        let offences = check(&Tree::of(&files)).expect("there is a document");
        let found: Vec<String> = offences
            .iter()
            .map(|offence| format!("{}: {}", offence.place, offence.what))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_guarantee_with_a_test_is_well() {
        check_files(
            "# Title\n\n**N7.** Errors.",
            &[("tests/it/nursery.rs", "#[test]\nfn n7_errors() {}")],
            &[],
        );
        check_files(
            "**N7.** Errors.",
            &[("tests/ui/n7_escape.rs", "fn main() {}")],
            &[],
        );
        check_files(
            "**N7.** Errors.",
            &[(
                "platform/tests/conformance.rs",
                "on_all! { fn n7_errors() {} }",
            )],
            &[],
        );
        check_files(
            "**N7.** Errors.",
            &[(
                "io/src/a.rs",
                "#[trio::test(seed = 7)]\npub async fn n7_errors() {}",
            )],
            &[],
        );
    }

    #[test]
    fn a_guarantee_without_a_test_is_reported() {
        check_files(
            "\n**N7.** Errors.",
            &[],
            &["docs/semantics.md:2: N7 has no test"],
        );
        check_files(
            "**N7.** Errors.",
            &[("tests/it/a.rs", "fn n70_other() {} fn n7() {} // fn n7_x")],
            &[
                "docs/semantics.md:1: N7 has no test",
                "tests/it/a.rs:1: `n70_other` tests N70, which docs/semantics.md does not state",
            ],
        );
    }

    #[test]
    fn outside_the_folders_of_tests_a_test_is_marked() {
        let text = "#[test]\nfn other() {}\nfn n7_errors() {}";
        check_files(
            "**N7.** Errors.",
            &[("io/src/a.rs", text)],
            &["docs/semantics.md:1: N7 has no test"],
        );
    }

    #[test]
    fn a_test_without_its_guarantee_is_reported() {
        check_files(
            "**N7.** A.",
            &[(
                "tests/it/a.rs",
                "fn n7_a() {}\nfn n8_b() {}\nfn u8_is_read() {}",
            )],
            &["tests/it/a.rs:2: `n8_b` tests N8, which docs/semantics.md does not state"],
        );
    }

    #[test]
    fn what_rust_has_not_needs_no_test_and_has_none() {
        let document = "**N12.** Bound. (not in Rust: the compiler sees to it)";
        check_files(document, &[], &[]);
        check_files(
            document,
            &[("tests/it/a.rs", "fn n12_bound() {}")],
            &[
                "docs/semantics.md:1: N12 is said not to be in Rust, and tests/it/a.rs:1 tests it as `n12_bound`",
            ],
        );
        check_files(
            "**N12.** Bound. (not in Rust)",
            &[],
            &["docs/semantics.md:1: N12 does not say why it is not in Rust"],
        );
    }

    #[test]
    fn a_number_is_stated_once() {
        check_files(
            "**N7.** A.\n**N7.** B.",
            &[("tests/it/a.rs", "fn n7_a() {}")],
            &["docs/semantics.md:2: N7 is stated twice"],
        );
    }

    #[test]
    fn a_row_of_the_table_names_tests_that_are_there_or_a_reason() {
        let table = "| Trio's | here |\n|---|---|\n\
                     | `test_a` | `n7_errors`, `sleeps_long`; and more in `other` |\n\
                     | `test_b` | not in Rust: `async with` |\n\
                     | `test_c` | `n7_errors`, `n7_gone` |\n\
                     | `test_d` |  |\n\
                     | `test_e` | not in Rust: see `n7_errors` and `n7_…` |\n";
        check_files(
            "**N7.** Errors.",
            &[
                ("docs/trio-tests.md", table),
                ("tests/it/a.rs", "fn n7_errors() {} fn sleeps_long() {}"),
            ],
            &[
                "docs/trio-tests.md:5: there is no test `n7_gone`",
                "docs/trio-tests.md:6: `test_d` has neither a test nor a reason",
                "docs/trio-tests.md:7: there is no test `n7_…`",
            ],
        );
    }

    #[test]
    fn each_trap_stands_in_its_place_with_its_tests_or_a_reason() {
        let tests = [("n7_errors".to_owned(), String::new())];
        let check = |page: &str, expected: &[&str]| {
            let found: Vec<String> = traps(Some(page), &tests)
                .iter()
                .map(|offence| format!("{}: {}", offence.place, offence.what))
                .collect();
            assert_eq!(found, expected);
        };
        let all = |count: usize| -> String {
            let one = |n: usize| format!("**{n}. To fall.** No.\nShown by `n7_errors`.\n\n");
            (1..=count).map(one).collect()
        };
        check(&format!("# Title\n\n{}", all(35)), &[]);
        check(&all(34), &["docs/traps.md: there are 34 traps, and not 35"]);
        let bad = "**1. One.** Later part: TLS.\n\n**2. Two.** No `n7_errors`.\n\n\
                   **2. Three.** No.\nShown by `n7_errors`, `n7_gone`.\n\n";
        let rest: String = (4..=35)
            .map(|n| format!("**{n}. X.** Later part: y.\n\n"))
            .collect();
        check(
            &format!("{bad}{rest}"),
            &[
                "docs/traps.md:3: trap 2 has neither a test nor a reason",
                "docs/traps.md:5: trap 2 stands in the place of trap 3",
                "docs/traps.md:5: there is no test `n7_gone`",
            ],
        );
    }

    #[test]
    fn other_bold_words_are_no_guarantees() {
        check_files(
            "**Note.** Text.\n**N.** Text.\n**ABC1.** Text.\nSee **N7.** there.",
            &[],
            &[],
        );
    }
}
