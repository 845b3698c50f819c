//! What the tree promises about itself, checked in every file of it.
//!
//! A check is a function from the tree to offences, and its list of exceptions stands above it, so
//! that an exception is a line in a review. A list may grow only by such a line.

use crate::source::Source;
use crate::tree::{Offence, Tree};

/// All checks of the text of the tree.
pub(crate) fn check(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (path, text) in tree.rust() {
        let source = Source::scan(text);
        offences.extend(head(path, text));
        offences.extend(unsafe_code(path, &source));
        offences.extend(calls(path, &source));
        offences.extend(unfinished(path, &source));
        offences.extend(dead_code(path, &source));
        offences.extend(examples(path, &source));
        offences.extend(seeded_tests(path, &source));
    }
    offences.extend(root(tree));
    offences.extend(test_modules(tree));
    offences.extend(sizes(tree));
    offences.extend(fragments(tree));
    offences
}

/// A reader should learn what a file is for before anything else.
fn head(path: &str, text: &str) -> Option<Offence> {
    (!text.starts_with("//") && !text.starts_with("/*")).then(|| {
        Offence::new(
            path,
            "the file does not open with a comment",
            "say in its first line what the file is for: `//! …`",
        )
    })
}

/// Where unsafe code is allowed. Everything else is safe code.
const UNSAFE_ALLOWED: &[&str] = &[
    // A limit to compare with: the bare ring, without the platform in between.
    "benches/compare/servers/bare/src/uring.rs",
    "platform/",
    "runtime/src/task/raw.rs",
    "runtime/src/nursery/erase.rs",
];

fn unsafe_code(path: &str, source: &Source<'_>) -> Vec<Offence> {
    if is_under(path, UNSAFE_ALLOWED) {
        return Vec::new();
    }
    let offence = |line| {
        Offence::new(
            format!("{path}:{line}"),
            "`unsafe` outside its modules",
            format!(
                "use what these offer safely, or put it there with its proof: {}",
                UNSAFE_ALLOWED.join(", ")
            ),
        )
    };
    source.find(&["unsafe"]).into_iter().map(offence).collect()
}

/// A call that belongs in few places, although the compiler would accept it anywhere.
struct Call {
    path: &'static [&'static str],
    allowed: &'static [&'static str],
    remedy: &'static str,
}

/// `clippy.toml` says the same by type, and can be silenced; this list cannot.
const CALLS: &[Call] = &[
    Call {
        path: &["Instant", ":", ":", "now"],
        allowed: &[
            "platform/src/clock.rs",
            "benches/",
            "tests/process/",
            "xtask/src/ci.rs",
        ],
        remedy: "ask the run (`current_time`), or below it the `SystemClock`: time that is read elsewhere cannot be virtual",
    },
    Call {
        path: &["SystemTime", ":", ":", "now"],
        allowed: &[],
        remedy: "ask the run (`current_time`): the time of day jumps",
    },
    Call {
        path: &["thread", ":", ":", "spawn"],
        allowed: &[
            "benches/",
            "io/tests/",
            "net/tests/",
            "platform/src/polling/tests.rs",
            "platform/tests/",
            "runtime/src/thread/",
            "tests/",
        ],
        remedy: "start a task, or move the thread to where its end is waited for: a thread has no parent",
    },
    Call {
        path: &["thread", ":", ":", "sleep"],
        // It waits for other processes, which are measured by the real clock.
        allowed: &["benches/compare/src/"],
        remedy: "`trio::sleep` in a task; in a test the virtual clock, `wait_all_tasks_blocked` or a `Sequencer`: a test that sleeps to win a race loses it one day",
    },
];

fn calls(path: &str, source: &Source<'_>) -> Vec<Offence> {
    let banned = CALLS.iter().filter(|call| !is_under(path, call.allowed));
    let offences = banned.flat_map(|call| {
        let what = format!("`{}` outside its places", call.path.concat());
        source
            .find(call.path)
            .into_iter()
            .map(move |line| Offence::new(format!("{path}:{line}"), what.clone(), call.remedy))
    });
    offences.collect()
}

/// Unfinished work does not belong in the tree.
fn unfinished(path: &str, source: &Source<'_>) -> Vec<Offence> {
    let remedy = "finish it, or leave it out and say so in an issue";
    let macros = ["todo", "unimplemented"].into_iter().flat_map(|name| {
        let what = format!("`{name}!`");
        source
            .find(&[name, "!"])
            .into_iter()
            .map(move |line| Offence::new(format!("{path}:{line}"), what.clone(), remedy))
    });
    let marks = source.comments.iter().filter_map(|comment| {
        let mut words = comment.text.split(|sign: char| !sign.is_alphanumeric());
        let mark = words.find(|word| ["FIXME", "TODO", "XXX"].contains(word))?;
        Some(Offence::new(
            format!("{path}:{}", comment.line),
            format!("`{mark}` in a comment"),
            remedy,
        ))
    });
    macros.chain(marks).collect()
}

/// Code in a comment is neither compiled nor explained.
fn dead_code(path: &str, source: &Source<'_>) -> Vec<Offence> {
    let dead = source
        .comments
        .iter()
        .filter(|comment| !comment.doc && is_code(comment.text));
    let offence = |line| {
        Offence::new(
            format!("{path}:{line}"),
            "code in a comment",
            "delete it, for git remembers; or say in a sentence why it is not done that way",
        )
    };
    dead.map(|comment| offence(comment.line)).collect()
}

/// The crates whose documentation users read as that of `trio`, the only crate that they depend on.
const SHOWN: &[&str] = &["io/src/", "net/src/", "runtime/src/"];

/// An example must work when it is copied.
fn examples(path: &str, source: &Source<'_>) -> Vec<Offence> {
    if !is_under(path, SHOWN) {
        return Vec::new();
    }
    let inner = ["trio_io::", "trio_net::", "trio_runtime::"];
    let names = |line: &str| {
        inner.into_iter().any(|name| {
            line.match_indices(name)
                .any(|(at, _)| !line[..at].ends_with("]("))
        })
    };
    let shown = source
        .comments
        .iter()
        .filter(|comment| comment.doc && !comment.text.trim_start().starts_with('#'));
    let offence = |line| {
        Offence::new(
            format!("{path}:{line}"),
            "the documentation of `trio` names a crate below it",
            "show `trio::…`, and say what that is in a hidden line: `# use trio_runtime as trio;`",
        )
    };
    shown
        .filter(|comment| names(comment.text))
        .map(|comment| offence(comment.line))
        .collect()
}

/// A guess from the first and last characters of a line. Prose ends differently, or begins
/// differently.
fn is_code(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    let second = line.split_whitespace().nth(1).unwrap_or_default();
    let block = line.ends_with('{');
    let statement = line.ends_with(';');
    let item = [
        "let", "pub", "fn", "async", "impl", "mod", "struct", "enum", "trait", "const", "static",
    ]
    .contains(&first);
    let branch = ["if", "for", "while", "match", "loop", "else", "}"].contains(&first);
    let assignment = matches!(second, "=" | "+=" | "-=" | "*=" | "|=" | "&=");
    let import = matches!(first, "use" | "pub") && (line.contains("::") || line.contains('{'));
    let call = line.ends_with(");") && first.contains('(') && !first.contains(")");
    let call_at_once = line.ends_with(");") && !line.contains(' ');
    let closing = ["}", "};", "})", "});", "})?;", "),", "},"].contains(&line);
    let attribute = line.starts_with("#[") && line.ends_with(']');
    closing
        || attribute
        || block && (item || branch)
        || statement && (item || assignment || import || call || call_at_once)
}

/// The simulation stage of `ci.rs` finds tests that take seeds by their names.
fn seeded_tests(path: &str, source: &Source<'_>) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut seeded = false;
    for three in source.tokens.windows(3) {
        match [three[0].text, three[1].text, three[2].text] {
            ["(" | ",", "seeds", "="] => seeded = true,
            ["fn", name, _] => {
                let named = !path.contains("tests/") || name.contains("seed");
                let offence = Offence::new(
                    format!("{path}:{}", three[1].line),
                    format!("`{name}` runs under several seeds and does not say so"),
                    "put `seed` into its name, as in `…_under_every_seed`: by that it is found and run under more",
                );
                let unnamed = std::mem::take(&mut seeded) && !named;
                offences.extend(unnamed.then_some(offence));
            }
            _ => {}
        }
    }
    offences
}

/// What a visitor finds at the root; work notes do not belong there.
const ROOT: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "changes",
    "clippy.toml",
    "deny.toml",
    "docs",
    "examples",
    "io",
    "macros",
    "net",
    "platform",
    "runtime",
    "rustfmt.toml",
    "src",
    "tests",
    "tls",
    "xtask",
];

fn root(tree: &Tree) -> Vec<Offence> {
    let mut entries: Vec<&str> = tree
        .files
        .iter()
        .map(|file| file.path.split('/').next().unwrap_or_default())
        .collect();
    entries.dedup();
    let stray = entries.into_iter().filter(|entry| !ROOT.contains(entry));
    let offence = |entry| {
        Offence::new(
            entry,
            "a stray entry at the root",
            "put it into the folder of its subject, or out of the tree; if a visitor needs it here, list it in `ROOT` of xtask/src/tidy.rs",
        )
    };
    stray.map(offence).collect()
}

/// A file beside a `main.rs` of tests that is not a module of it would never run.
fn test_modules(tree: &Tree) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (main, text) in tree.rust() {
        let Some(folder) = main
            .strip_suffix("main.rs")
            .filter(|folder| is_test_folder(folder))
        else {
            continue;
        };
        let source = Source::scan(text);
        for (path, _) in tree.rust().filter(|(path, _)| *path != main) {
            let Some(module) = path.strip_prefix(folder).and_then(module_name) else {
                continue;
            };
            if source.find(&["mod", module, ";"]).is_empty() {
                let what = format!("the file is no module of {main}, so it never runs");
                offences.push(Offence::new(
                    path,
                    what,
                    format!("write `mod {module};` there"),
                ));
            }
        }
    }
    offences
}

fn is_test_folder(folder: &str) -> bool {
    let mut parts = folder.split('/').rev().skip(1);
    parts.next().is_some_and(|name| !name.is_empty()) && parts.next() == Some("tests")
}

/// The module whose head is `path`, relative to the folder of its parent.
fn module_name(path: &str) -> Option<&str> {
    let name = path
        .strip_suffix("/mod.rs")
        .or_else(|| path.strip_suffix(".rs"))?;
    (!name.contains('/')).then_some(name)
}

/// So that a clone stays quick, and a review readable.
const BYTES_MAX: u64 = 100 * 1024;
const LARGE_ALLOWED: &[&str] = &["Cargo.lock"];

fn sizes(tree: &Tree) -> Vec<Offence> {
    let large = tree
        .files
        .iter()
        .filter(|file| file.bytes > BYTES_MAX && !LARGE_ALLOWED.contains(&file.path.as_str()));
    let offence = |path: &str, bytes: u64| {
        Offence::new(
            path,
            format!("{} KiB, more than {}", bytes / 1024, BYTES_MAX / 1024),
            "make it when it is needed, or cut it by subject; if it has to be so, list it in `LARGE_ALLOWED` of xtask/src/tidy.rs",
        )
    };
    large.map(|file| offence(&file.path, file.bytes)).collect()
}

/// The chapters of the changelog.
const KINDS: &[&str] = &["added", "changed", "fixed", "removed", "security"];

fn fragments(tree: &Tree) -> Vec<Offence> {
    let named = |path: &str| {
        let name = path
            .strip_prefix("changes/")
            .and_then(|name| name.strip_suffix(".md"));
        let kind = name
            .and_then(|name| name.split_once('.'))
            .map(|(_, kind)| kind);
        kind.is_some_and(|kind| KINDS.contains(&kind))
    };
    let files = tree.files.iter().map(|file| file.path.as_str());
    let stray = files.filter(|path| {
        path.starts_with("changes/") && *path != "changes/README.md" && !named(path)
    });
    let remedy = format!(
        "name it `changes/<topic>.<kind>.md`; the kinds are {}",
        KINDS.join(", ")
    );
    stray
        .map(|path| Offence::new(path, "not a fragment of the changelog", remedy.clone()))
        .collect()
}

/// Whether `path` is one of `places`, or lies in one that ends in a slash.
fn is_under(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offences in the files given, as `place: what`.
    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let offences = check(&Tree::of(files));
        let found: Vec<String> = offences
            .iter()
            .map(|offence| format!("{}: {}", offence.place, offence.what))
            .collect();
        assert_eq!(found, expected);
        assert!(
            offences.iter().all(|offence| !offence.remedy.is_empty()),
            "each check prints the remedy"
        );
    }

    #[test]
    fn a_file_opens_with_a_comment() {
        check_files(&[("src/lib.rs", "//! What it is.\nmod a;")], &[]);
        check_files(
            &[("src/lib.rs", "mod a;\n//! Late.")],
            &["src/lib.rs: the file does not open with a comment"],
        );
        check_files(
            &[("src/lib.rs", "")],
            &["src/lib.rs: the file does not open with a comment"],
        );
        check_files(&[("README.md", "Not Rust.")], &[]);
    }

    #[test]
    fn unsafe_stands_in_its_modules_only() {
        let text = "//! Head.\n// unsafe in words\nfn f() { unsafe { g(\"unsafe\") } }";
        check_files(
            &[
                ("platform/src/fd.rs", text),
                ("runtime/src/task/raw.rs", text),
            ],
            &[],
        );
        check_files(
            &[("io/src/lib.rs", text)],
            &["io/src/lib.rs:3: `unsafe` outside its modules"],
        );
        check_files(
            &[("runtime/src/task/raw/x.rs", text)],
            &["runtime/src/task/raw/x.rs:3: `unsafe` outside its modules"],
        );
        check_files(
            &[("io/src/lib.rs", "//! Head.\n#![forbid(unsafe_code)]")],
            &[],
        );
    }

    #[test]
    fn an_example_shows_what_a_user_writes() {
        let hidden = "//! Head.\n/// # use trio_runtime as trio;\n/// # trio_runtime::run(f);\n/// use trio::run;\n/// See [it](trio_runtime::run).\nfn f() {}";
        check_files(&[("io/src/lib.rs", hidden)], &[]);
        let shown = "//! Head.\n/// use trio_runtime::run;\nfn f() {}";
        check_files(&[("platform/src/fd.rs", shown)], &[]);
        check_files(
            &[("io/src/lib.rs", shown)],
            &["io/src/lib.rs:2: the documentation of `trio` names a crate below it"],
        );
    }

    #[test]
    fn clocks_and_threads_stay_in_their_places() {
        let text = "//! Head.\nfn f() { std::time::Instant::now(); }";
        check_files(
            &[("platform/src/clock.rs", text), ("benches/echo.rs", text)],
            &[],
        );
        check_files(
            &[("net/src/serve.rs", text)],
            &["net/src/serve.rs:2: `Instant::now` outside its places"],
        );
        check_files(
            &[(
                "tests/it/a.rs",
                "//! Head.\nuse std::thread;\nfn f() { thread::spawn(g);\nthread::sleep(x) }",
            )],
            &["tests/it/a.rs:4: `thread::sleep` outside its places"],
        );
    }

    #[test]
    fn nothing_is_left_unfinished() {
        check_files(
            &[(
                "src/lib.rs",
                "//! Head.\nfn f() { todo!() }\n// FIXME: all of it\nfn todo() { \"unimplemented!\" }",
            )],
            &[
                "src/lib.rs:2: `todo!`",
                "src/lib.rs:3: `FIXME` in a comment",
            ],
        );
    }

    #[test]
    fn code_in_a_comment_is_told_from_prose() {
        let code = [
            "let x = 1;",
            "x = 1;",
            "use std::io;",
            "pub fn f(x: u8) -> u8 {",
            "} else {",
            "}",
            "});",
            "self.driver.cancel(key);",
            "assert_eq!(a, b);",
            "#[derive(Debug)]",
            "if x {",
        ];
        for line in code {
            assert!(is_code(line), "{line}");
        }
        let prose = [
            "The driver closes it;",
            "use it once;",
            "poll(2) returns at once (see there);",
            "if the kernel does so,",
            "for the peer is gone;",
            "1.5 times `let x = 1;`.",
            "SAFETY: `f(x)` holds (rule 2);",
            "match the one below",
            "",
        ];
        for line in prose {
            assert!(!is_code(line), "{line}");
        }
        check_files(
            &[("src/lib.rs", "//! Head.\n/// let x = 1;\n// let x = 1;")],
            &["src/lib.rs:3: code in a comment"],
        );
    }

    #[test]
    fn a_test_of_many_seeds_says_so() {
        let text = "//! Head.\n#[trio::test(seeds = 9)]\nasync fn n7_x_under_every_seed() {}\n#[trio::test(seed = 1, seeds = 9)]\nasync fn n8_y() { let seeds = 1; }\nfn z() {}";
        check_files(
            &[("tests/it/a.rs", text)],
            &["tests/it/a.rs:5: `n8_y` runs under several seeds and does not say so"],
        );
    }

    #[test]
    fn the_root_holds_what_a_visitor_needs() {
        check_files(
            &[
                ("Cargo.toml", ""),
                ("PLAN.md", ""),
                ("notes/a.md", ""),
                ("notes/b.md", ""),
            ],
            &[
                "PLAN.md: a stray entry at the root",
                "notes: a stray entry at the root",
            ],
        );
    }

    #[test]
    fn every_test_file_is_a_module() {
        check_files(
            &[
                (
                    "tests/it/main.rs",
                    "//! Head.\nmod tcp;\n// mod udp\nmod unix;",
                ),
                ("tests/it/tcp.rs", "//! Head."),
                ("tests/it/udp.rs", "//! Head."),
                ("tests/it/unix/mod.rs", "//! Head."),
                ("tests/it/unix/stream.rs", "//! Head."),
                ("tests/process.rs", "//! Head."),
                ("tests/ui/a.rs", "//! Head."),
            ],
            &["tests/it/udp.rs: the file is no module of tests/it/main.rs, so it never runs"],
        );
    }

    #[test]
    fn large_files_are_listed() {
        let large = "x".repeat(101 * 1024);
        check_files(
            &[("Cargo.lock", &large), ("docs/picture.svg", &large)],
            &["docs/picture.svg: 101 KiB, more than 100"],
        );
    }

    #[test]
    fn a_changelog_fragment_names_its_kind() {
        check_files(
            &[
                ("changes/README.md", ""),
                ("changes/nursery.added.md", ""),
                ("changes/nursery.md", ""),
                ("changes/nursery.better.md", ""),
            ],
            &[
                "changes/nursery.md: not a fragment of the changelog",
                "changes/nursery.better.md: not a fragment of the changelog",
            ],
        );
    }
}
