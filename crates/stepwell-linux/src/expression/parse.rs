//! From text to a tree.

use super::ExpressionError;

/// How deep parentheses and prefixes may lie in each other.
const DEPTH_MAX: usize = 64;

/// A part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Number(u64),
    Name(String),
    /// A name and the word in parentheses behind it.
    Call(String, String),
    /// A type's name, how many stars are behind it, and what is cast.
    Cast(String, u8, Box<Node>),
    Dereference(Box<Node>),
    Address(Box<Node>),
    /// Of what, which, and whether through a pointer.
    Member(Box<Node>, String, bool),
    Element(Box<Node>, u64),
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let node = parser.prefixed()?;
    if parser.rest.is_empty() {
        return Ok(node);
    }
    Err(unexpected(parser.rest))
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.strip_prefix(token);
        if let Some(rest) = found {
            self.rest = rest.trim_start();
        }
        found.is_some()
    }

    /// Takes a word of letters, digits and underscores, and `$` before a register.
    fn word(&mut self) -> Option<&'a str> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_$".contains(letter);
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    fn prefixed(&mut self) -> Result<Node, ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExpressionError::Syntax("too deep".to_owned()));
        }
        let node = if self.take("*") {
            Node::Dereference(Box::new(self.prefixed()?))
        } else if self.take("&") {
            Node::Address(Box::new(self.prefixed()?))
        } else if let Some((name, pointers)) = self.cast() {
            Node::Cast(name, pointers, Box::new(self.prefixed()?))
        } else {
            self.suffixed()?
        };
        self.depth -= 1;
        Ok(node)
    }

    /// Takes `(TYPE *)`, if that is what comes: a word of types, or a star, tells it from others.
    fn cast(&mut self) -> Option<(String, u8)> {
        let mut ahead = Parser { rest: self.rest.strip_prefix('(')?.trim_start(), depth: 0 };
        let mut words = Vec::new();
        while let Some(word) = ahead.word() {
            words.push(word);
        }
        let mut pointers = 0_u8;
        while ahead.take("*") {
            pointers = pointers.checked_add(1)?;
        }
        let is_type = pointers > 0 || words.len() > 1;
        if words.is_empty() || !is_type || !ahead.take(")") {
            return None;
        }
        self.rest = ahead.rest;
        Some((words.join(" "), pointers))
    }

    fn suffixed(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.plain()?;
        loop {
            if self.take("->") {
                node = Node::Member(Box::new(node), self.member()?, true);
            } else if self.take(".") {
                node = Node::Member(Box::new(node), self.member()?, false);
            } else if self.take("[") {
                let index = self.word().and_then(number).ok_or_else(|| unexpected(self.rest))?;
                if !self.take("]") {
                    return Err(unexpected(self.rest));
                }
                node = Node::Element(Box::new(node), index);
            } else {
                return Ok(node);
            }
        }
    }

    fn member(&mut self) -> Result<String, ExpressionError> {
        Ok(self.word().ok_or_else(|| unexpected(self.rest))?.to_owned())
    }

    fn plain(&mut self) -> Result<Node, ExpressionError> {
        if self.take("(") {
            let node = self.prefixed()?;
            return if self.take(")") { Ok(node) } else { Err(unexpected(self.rest)) };
        }
        let word = self.word().ok_or_else(|| unexpected(self.rest))?;
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            let wrong = || ExpressionError::Syntax(format!("{word} is no number"));
            return number(word).map(Node::Number).ok_or_else(wrong);
        }
        if let Some(rest) = self.rest.strip_prefix('(') {
            let (argument, rest) = rest.split_once(')').ok_or_else(|| unexpected(self.rest))?;
            self.rest = rest.trim_start();
            return Ok(Node::Call(word.to_owned(), argument.trim().to_owned()));
        }
        Ok(Node::Name(word.strip_prefix('$').unwrap_or(word).to_owned()))
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn unexpected(rest: &str) -> ExpressionError {
    let text = match rest {
        "" => "the expression is not complete".to_owned(),
        rest => format!("unexpected {rest:?}"),
    };
    ExpressionError::Syntax(text)
}
