//! The code that the attributes generate.
//!
//! The user's function goes into the new one whole, and keeps its name and its types, so its errors
//! are reported as if it stood alone. The generated code is in a block of its own, where the user's
//! code does not see its names.

use std::fmt::Write;

use crate::function::Function;
use crate::options::{Backend, MainOptions, TestOptions};
use crate::tokens::{Complaint, TokenStream, TokenTree, braces, code, is};

/// Expands `#[trio::main]`.
pub(crate) fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    let stub = stub(item.clone());
    let expanded = MainOptions::parse(options).and_then(|options| {
        let function = Function::parse(item, "#[trio::main]")?;
        let backend = options
            .backend
            .map(|backend| builder(Some(backend), false, None));
        let call = run(&function, backend.as_deref());
        Ok(wrap(function, "", true, code(&call)))
    });
    expanded.unwrap_or_else(|complaint| complaint.into_tokens().into_iter().chain(stub).collect())
}

/// Expands `#[trio::test]`.
pub(crate) fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = TestOptions::parse(options).and_then(|options| {
        let function = Function::parse(item, "#[trio::test]")?;
        let once = options.backends.len() <= 1 && options.seeds.is_none();
        let call = if once {
            run_once(&function, &options)
        } else {
            run_often(&function, &options)
        };
        Ok(wrap(
            function,
            "#[::core::prelude::v1::test]",
            once,
            code(&call),
        ))
    });
    expanded.unwrap_or_else(Complaint::into_tokens)
}

/// The plain function: `attribute`, then the user's function and `call` in its body. It returns
/// what the user's function returns if `call` does.
fn wrap(function: Function, attribute: &str, returns: bool, call: TokenStream) -> TokenStream {
    let Function {
        attributes,
        visibility,
        name,
        output,
        body,
    } = function;
    let name = TokenStream::from(TokenTree::from(name));
    let asynchronous = [
        code("async fn"),
        name.clone(),
        code("()"),
        output.clone(),
        body.into(),
    ];
    let inner = asynchronous.into_iter().chain([braces(call)]).collect();
    let returned = if returns { output } else { TokenStream::new() };
    [
        code(attribute),
        attributes,
        visibility,
        code("fn"),
        name,
        code("()"),
        returned,
        braces(inner),
    ]
    .into_iter()
    .collect()
}

/// A call of the user's function on the run that `builder` describes, or on a default one.
fn run(function: &Function, builder: Option<&str>) -> String {
    match builder {
        None => format!("::trio::run({}())", function.name),
        Some(builder) => format!("{builder}.run({}())", function.name),
    }
}

fn run_once(function: &Function, options: &TestOptions) -> String {
    let seed = options.seed.map(|seed| format!("{seed}u64"));
    let backend = options.backends.first().copied();
    let builder = builder(backend, options.autojump, seed.as_deref());
    run(function, Some(&for_test(builder)))
}

/// A test that nothing can wake any more fails; a program only reports it.
fn for_test(builder: String) -> String {
    builder + ".fail_on_deadlock()"
}

/// Several runs; the first that fails is named and ends the test. A panic continues unchanged, for
/// `#[should_panic(expected = …)]` to look at.
fn run_often(function: &Function, options: &TestOptions) -> String {
    let seeds_are = match (options.seed, options.seeds) {
        (_, Some(_)) => Seeds::Many,
        (Some(_), None) => Seeds::One,
        (None, None) => Seeds::None,
    };
    let seeded = seeds_are != Seeds::None;
    let backends: Vec<Option<Backend>> = match options.backends.as_slice() {
        [] => vec![None],
        backends => backends.iter().copied().map(Some).collect(),
    };
    let mut runs = String::new();
    for backend in backends {
        let builder = for_test(builder(
            backend,
            options.autojump,
            seeded.then_some("__trio_seed"),
        ));
        let failed = message("failed", backend, seeds_are);
        let panicked = message("panicked", backend, seeds_are);
        let call = run(function, Some(&builder));
        write!(
            runs,
            "match ::std::panic::catch_unwind(|| ::std::process::Termination::report({call})) {{
                ::core::result::Result::Ok(__trio_code) => ::core::assert!(
                    __trio_code == ::std::process::ExitCode::SUCCESS,
                    {failed},
                ),
                ::core::result::Result::Err(__trio_panic) => {{
                    ::std::eprintln!({panicked});
                    ::std::panic::resume_unwind(__trio_panic);
                }}
            }}"
        )
        .expect("a string has room");
    }
    if seeded {
        format!("for __trio_seed in {} {{ {runs} }}", seeds(options))
    } else {
        runs
    }
}

/// What to print: `"the test failed on polling with seed {}: TRIO_TEST_SEED={} replays it",
/// __trio_seed, __trio_seed`. The seed is not inlined into the text, because older editions would
/// print its name. A test that has a single seed needs no replay.
fn message(what: &str, backend: Option<Backend>, seeds: Seeds) -> String {
    let on = backend.map_or(String::new(), |backend| format!(" on {}", backend.name()));
    match seeds {
        Seeds::None => format!("\"the test {what}{on}\""),
        Seeds::One => format!("\"the test {what}{on} with seed {{}}\", __trio_seed"),
        Seeds::Many => format!(
            "\"the test {what}{on} with seed {{}}: TRIO_TEST_SEED={{}} replays it\", \
             __trio_seed, __trio_seed"
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seeds {
    None,
    One,
    Many,
}

/// The seeds to try, as an iterator. Only a test that tries several takes more from the
/// environment.
fn seeds(options: &TestOptions) -> String {
    let first = options.seed.unwrap_or(0);
    match options.seeds {
        None => format!("[{first}u64]"),
        Some(count) => format!("::trio::testing::seeds({first}u64, {count}u64)"),
    }
}

/// The description of a run; `seed` is an expression.
fn builder(backend: Option<Backend>, autojump: bool, seed: Option<&str>) -> String {
    let mut builder = "::trio::Builder::new()".to_owned();
    match backend {
        None => {}
        Some(Backend::IoUring) => builder.push_str(".backend(::trio::Backend::IoUring)"),
        Some(Backend::Polling) => builder.push_str(".backend(::trio::Backend::Polling)"),
        Some(Backend::Simulation) => {
            let simulation = format!(
                ".simulation(::trio::testing::Simulation::new({}))",
                seed.unwrap_or("0u64")
            );
            builder.push_str(&simulation);
        }
    }
    // The simulation has a virtual clock of its own.
    if autojump && backend != Some(Backend::Simulation) {
        builder.push_str(".clock(::trio::testing::MockClock::autojump())");
    }
    if let Some(seed) = seed {
        builder.push_str(&format!(".seed({seed})"));
    }
    builder
}

/// A `main` that does nothing, if `item` is one, so that the compiler does not also complain that
/// there is none.
fn stub(item: TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = item.into_iter().collect();
    let is_main = tokens
        .windows(2)
        .any(|pair| is(&pair[0], "fn") && is(&pair[1], "main"));
    code(if is_main { "fn main() {}" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> TokenStream {
        text.parse().expect("the test gives tokens")
    }

    #[track_caller]
    fn check(expanded: TokenStream, expected: &str) {
        assert_eq!(expanded.to_string(), tokens(expected).to_string());
    }

    #[test]
    fn a_program_runs_its_main() {
        check(
            main(
                tokens(""),
                tokens("/// Doc.\npub async fn main() -> Result<()> { f().await }"),
            ),
            "/// Doc.
            pub fn main() -> Result<()> {
                async fn main() -> Result<()> { f().await }
                { ::trio::run(main()) }
            }",
        );
        check(
            main(
                tokens("backend = \"io_uring\""),
                tokens("async fn main() {}"),
            ),
            "fn main() {
                async fn main() {}
                { ::trio::Builder::new().backend(::trio::Backend::IoUring).run(main()) }
            }",
        );
    }

    #[test]
    fn a_refused_program_has_a_main_still() {
        let expanded = main(tokens(""), tokens("fn main() {}")).to_string();
        assert!(expanded.contains("compile_error"), "{expanded}");
        assert!(
            expanded.ends_with(&tokens("fn main() {}").to_string()),
            "{expanded}"
        );
        let expanded = main(tokens("color = 1"), tokens("async fn other() {}")).to_string();
        assert!(expanded.contains("there is no option"), "{expanded}");
        assert!(!expanded.contains("fn"), "{expanded}");
    }

    #[test]
    fn a_test_is_a_test() {
        check(
            test(
                tokens(""),
                tokens("#[should_panic] async fn it() { panic!() }"),
            ),
            "#[::core::prelude::v1::test]
            #[should_panic]
            fn it() {
                async fn it() { panic!() }
                { ::trio::Builder::new().fail_on_deadlock().run(it()) }
            }",
        );
    }

    #[test]
    fn a_single_run_keeps_its_result() {
        check(
            test(
                tokens("backend = \"simulation\", seed = 7"),
                tokens("async fn it() -> Result<()> {}"),
            ),
            "#[::core::prelude::v1::test]
            fn it() -> Result<()> {
                async fn it() -> Result<()> {}
                {
                    ::trio::Builder::new()
                        .simulation(::trio::testing::Simulation::new(7u64))
                        .seed(7u64)
                        .fail_on_deadlock()
                        .run(it())
                }
            }",
        );
        check(
            test(tokens("clock = \"autojump\""), tokens("async fn it() {}")),
            "#[::core::prelude::v1::test]
            fn it() {
                async fn it() {}
                {
                    ::trio::Builder::new()
                        .clock(::trio::testing::MockClock::autojump())
                        .fail_on_deadlock()
                        .run(it())
                }
            }",
        );
    }
}
