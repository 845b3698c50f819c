//! The function that has an attribute, parsed as far as the attribute needs to know it.

use crate::tokens::{Complaint, Delimiter, Ident, Span, TokenStream, TokenTree, is, is_group};

/// An `async fn` without arguments.
#[derive(Debug)]
pub(crate) struct Function {
    /// The other attributes, documentation included.
    pub(crate) attributes: TokenStream,
    pub(crate) visibility: TokenStream,
    pub(crate) name: Ident,
    /// The arrow and the type, or nothing.
    pub(crate) output: TokenStream,
    pub(crate) body: TokenTree,
}

impl Function {
    /// Parses `item`; `attribute` is the attribute on it, as a user writes it.
    pub(crate) fn parse(item: TokenStream, attribute: &str) -> Result<Self, Complaint> {
        let tokens: Vec<TokenTree> = item.into_iter().collect();
        let no_function = || {
            Complaint::new(
                Span::call_site(),
                format!("`{attribute}` stands on a function"),
            )
        };
        let (attributes, rest) = attributes(&tokens);
        let (visibility, rest) = visibility(rest);
        let keyword = rest
            .iter()
            .position(|token| is(token, "fn"))
            .ok_or_else(no_function)?;
        let (qualifiers, signature) = rest.split_at(keyword);
        check_attributes(attributes, attribute)?;
        check_qualifiers(qualifiers, &signature[0], attribute)?;
        let [_, TokenTree::Ident(name), rest @ ..] = signature else {
            return Err(no_function());
        };
        let [arguments, output @ .., body] = rest else {
            return Err(no_function());
        };
        check_arguments(arguments, attribute)?;
        check_output(output, attribute)?;
        // A block that comes out of another macro is a group without delimiters.
        if !is_group(body, Delimiter::Brace) && !is_group(body, Delimiter::None) {
            return Err(Complaint::new(
                body.span(),
                format!("`{attribute}` needs a function with a body"),
            ));
        }
        Ok(Self {
            attributes: attributes.iter().cloned().collect(),
            visibility: visibility.iter().cloned().collect(),
            name: name.clone(),
            output: output.iter().cloned().collect(),
            body: body.clone(),
        })
    }
}

/// The attributes at the head of `tokens`, and the rest.
fn attributes(tokens: &[TokenTree]) -> (&[TokenTree], &[TokenTree]) {
    let pairs = tokens.chunks_exact(2);
    let count = pairs
        .take_while(|pair| is(&pair[0], "#") && is_group(&pair[1], Delimiter::Bracket))
        .count();
    tokens.split_at(2 * count)
}

/// The visibility at the head of `tokens`, and the rest.
fn visibility(tokens: &[TokenTree]) -> (&[TokenTree], &[TokenTree]) {
    let length = match tokens {
        [first, second, ..] if is(first, "pub") && is_group(second, Delimiter::Parenthesis) => 2,
        [first, ..] if is(first, "pub") || is_group(first, Delimiter::None) => 1,
        _ => 0,
    };
    tokens.split_at(length)
}

fn check_attributes(attributes: &[TokenTree], attribute: &str) -> Result<(), Complaint> {
    for token in attributes {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let words: Vec<TokenTree> = group.stream().into_iter().collect();
        if matches!(words.as_slice(), [word] if is(word, "test")) {
            let message = format!("remove `#[test]`: `{attribute}` makes the function a test");
            return Err(Complaint::new(group.span(), message));
        }
    }
    Ok(())
}

/// Checks that nothing but `async` stands before `fn`.
fn check_qualifiers(
    qualifiers: &[TokenTree],
    keyword: &TokenTree,
    attribute: &str,
) -> Result<(), Complaint> {
    if let Some(other) = qualifiers.iter().find(|token| !is(token, "async")) {
        let message = format!("`{attribute}` takes an `async fn`, without `{other}`");
        return Err(Complaint::new(other.span(), message));
    }
    if qualifiers.is_empty() {
        let message = format!(
            "`{attribute}` runs an `async fn`: write `async` before `fn`, or remove the attribute"
        );
        return Err(Complaint::new(keyword.span(), message));
    }
    Ok(())
}

/// Checks that `()` follows the name.
fn check_arguments(arguments: &TokenTree, attribute: &str) -> Result<(), Complaint> {
    match arguments {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
            if group.stream().is_empty() {
                return Ok(());
            }
            let message =
                format!("nobody passes arguments to a function under `{attribute}`: remove them");
            Err(Complaint::new(group.span(), message))
        }
        other => {
            let message = format!(
                "nobody chooses parameters for a function under `{attribute}`: remove them"
            );
            Err(Complaint::new(other.span(), message))
        }
    }
}

/// Checks that an arrow and a type follow the arguments, or nothing.
fn check_output(output: &[TokenTree], attribute: &str) -> Result<(), Complaint> {
    let clause = output.iter().find(|token| is(token, "where"));
    let strange = output.first().filter(|token| !is(token, "-"));
    match clause.or(strange) {
        None => Ok(()),
        Some(token) => {
            let message =
                format!("a function under `{attribute}` has a return type at most: remove this");
            Err(Complaint::new(token.span(), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> Result<Function, String> {
        let item = text.parse().expect("the test gives tokens");
        Function::parse(item, "#[trio::main]").map_err(|complaint| complaint.message)
    }

    #[track_caller]
    fn check(text: &str, parts: [&str; 4]) {
        let function = parse(text).expect("this is a function");
        let found = [
            function.attributes.to_string(),
            function.visibility.to_string(),
            function.name.to_string(),
            function.output.to_string(),
        ];
        let expected = parts.map(|part| {
            part.parse::<TokenStream>()
                .expect("the test gives tokens")
                .to_string()
        });
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = parse(text).expect_err("this must be refused");
        assert!(message.contains(expected), "{message}");
        assert!(
            message.contains("#[trio::main]"),
            "a complaint names the attribute: {message}"
        );
    }

    #[test]
    fn the_parts_of_a_function_are_found() {
        check("async fn main() {}", ["", "", "main", ""]);
        check(
            "pub async fn main() -> Result<()> { Ok(()) }",
            ["", "pub", "main", "-> Result<()>"],
        );
        check(
            "pub(crate) async fn main() {}",
            ["", "pub(crate)", "main", ""],
        );
        check(
            "/// Doc.\n#[should_panic(expected = \"x\")] async fn it_works() {}",
            [
                "/// Doc.\n#[should_panic(expected = \"x\")]",
                "",
                "it_works",
                "",
            ],
        );
        check(
            "async fn main() -> Sized<{ 1 + 1 }> { f() }",
            ["", "", "main", "-> Sized<{ 1 + 1 }>"],
        );
        check("async fn r#fn() {}", ["", "", "r#fn", ""]);
    }

    #[test]
    fn a_function_that_is_not_async_is_refused() {
        check_refused("fn main() {}", "write `async` before `fn`");
        check_refused("pub fn main() {}", "write `async` before `fn`");
    }

    #[test]
    fn other_qualifiers_are_refused() {
        check_refused("async unsafe fn main() {}", "without `unsafe`");
        check_refused("const async fn main() {}", "without `const`");
        check_refused("async extern \"C\" fn main() {}", "without `extern`");
    }

    #[test]
    fn arguments_and_parameters_are_refused() {
        check_refused("async fn main(x: u8) {}", "arguments");
        check_refused("async fn main<T>() {}", "parameters");
        check_refused(
            "async fn main() where (): Sized {}",
            "a return type at most",
        );
        check_refused(
            "async fn main() -> u8 where (): Sized {}",
            "a return type at most",
        );
    }

    #[test]
    fn other_items_are_refused() {
        check_refused("struct Main;", "stands on a function");
        check_refused("", "stands on a function");
        check_refused("async fn", "stands on a function");
        check_refused("async fn main", "stands on a function");
        check_refused("async fn main()", "stands on a function");
        check_refused("async fn main();", "needs a function with a body");
    }

    #[test]
    fn a_second_test_attribute_is_refused() {
        check_refused("#[test] async fn main() {}", "remove `#[test]`");
    }
}
