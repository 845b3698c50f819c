//! Tokens, and errors that point at one.
//!
//! The compiler's tokens exist only while it runs a macro, so the tests use a substitute.

use std::fmt::Write;

#[cfg(not(test))]
pub(crate) use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
#[cfg(test)]
pub(crate) use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

/// Why an attribute cannot be used in this way, and which token is to blame.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) at: Span,
    pub(crate) message: String,
}

impl Complaint {
    pub(crate) fn new(at: Span, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }

    /// Code that makes the compiler report it.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let mut message = String::new();
        write!(message, "::core::compile_error! {{ {:?} }}", self.message)
            .expect("a string has room");
        let at = self.at;
        let pointed = code(&message).into_iter().map(|mut token| {
            token.set_span(at);
            token
        });
        pointed.collect()
    }
}

/// The tokens of code that this crate writes itself.
pub(crate) fn code(text: &str) -> TokenStream {
    match text.parse() {
        Ok(tokens) => tokens,
        Err(error) => panic!("`{text}` is not Rust: {error}"),
    }
}

/// `tokens` in braces.
pub(crate) fn braces(tokens: TokenStream) -> TokenStream {
    TokenTree::from(Group::new(Delimiter::Brace, tokens)).into()
}

/// Whether `token` is the word or the sign `text`.
pub(crate) fn is(token: &TokenTree, text: &str) -> bool {
    let single = matches!(token, TokenTree::Ident(_) | TokenTree::Punct(_));
    single && token.to_string() == text
}

/// Whether `token` is a group in brackets of this kind.
pub(crate) fn is_group(token: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter)
}
