//! Values as text, in C's way: numbers, text, pointers with the names of where they lead, and
//! structures member by member.

use super::value::{Type, Value};
use super::{Evaluation, ExpressionError};
use crate::btf::{Encoding, Kind, text};
use std::fmt::Write;

/// How deep structures are shown in structures.
const DEPTH_MAX: usize = 3;
/// Most elements of an array that are shown.
const ELEMENTS_MAX: u64 = 16;
/// Longest text that is shown.
const TEXT_MAX: u64 = 256;
/// Most lines that are shown, and most letters.
const LINES_MAX: usize = 400;
const LETTERS_MAX: usize = 1 << 16;

impl Evaluation<'_> {
    /// Returns a value as text.
    pub(super) fn show(&mut self, value: &Value) -> Result<String, ExpressionError> {
        let mut out = Out { text: String::new(), lines: 1 };
        match *value {
            Value::Number { number, of: None } => self.untyped(number, &mut out),
            Value::Number { number, of: Some(of) } => self.number(number, of, &mut out),
            Value::Place { address, of, bits } => self.place(address, of, bits, 0, &mut out)?,
        }
        Ok(out.text)
    }

    fn untyped(&self, number: u64, out: &mut Out) {
        out.put(format_args!("{number:#x}"));
        match self.scope.describe(number) {
            Some(name) => out.put(format_args!(" <{name}>")),
            None => out.put(format_args!(" ({number})")),
        }
    }

    fn place(
        &mut self,
        address: u64,
        of: Type,
        bits: Option<(u8, u8)>,
        depth: usize,
        out: &mut Out,
    ) -> Result<(), ExpressionError> {
        let btf = self.kernel.btf();
        let kind = btf.get(btf.resolve(of.id)).map(|one| one.kind);
        match kind {
            Some(Kind::Composite(members)) if of.pointers == 0 => {
                if depth == DEPTH_MAX {
                    out.put(format_args!("{{...}}"));
                    return Ok(());
                }
                out.put(format_args!("{{"));
                for member in members.iter() {
                    if out.is_full() {
                        out.line(depth + 1);
                        out.put(format_args!("..."));
                        break;
                    }
                    let field = btf.field(member.id, member.bit_offset.into(), member.bits);
                    let Some(field) = field else { continue };
                    out.line(depth + 1);
                    if !member.name.is_empty() {
                        out.put(format_args!("{} = ", text(member.name)));
                    }
                    let (at, of) =
                        (address.wrapping_add(field.offset), Type { id: field.id, pointers: 0 });
                    self.place(at, of, field.bits, depth + 1, out)?;
                }
                out.line(depth);
                out.put(format_args!("}}"));
                Ok(())
            }
            Some(Kind::Array { element, count }) if of.pointers == 0 => {
                self.array(address, Type { id: element, pointers: 0 }, count.into(), depth, out)
            }
            None | Some(Kind::Function | Kind::Forward) if of.pointers == 0 => {
                self.untyped(address, out);
                Ok(())
            }
            _ => {
                match self.read(&Value::Place { address, of, bits }) {
                    Ok(number) => self.number(number, of, out),
                    Err(ExpressionError::Guest(error)) if error.is_fatal() => {
                        return Err(error.into());
                    }
                    Err(error) => out.put(format_args!("<{error}>")),
                }
                Ok(())
            }
        }
    }

    fn array(
        &mut self,
        address: u64,
        element: Type,
        count: u64,
        depth: usize,
        out: &mut Out,
    ) -> Result<(), ExpressionError> {
        let btf = self.kernel.btf();
        let kind = btf.get(btf.resolve(element.id)).map(|one| (one.kind, one.text()));
        let Some(size) = self.size(element) else {
            out.put(format_args!("<no size>"));
            return Ok(());
        };
        if let Some((Kind::Int(encoding), name)) = kind
            && size == 1
            && (encoding == Encoding::Character || name == "char")
        {
            let mut bytes = vec![0; count.min(TEXT_MAX) as usize];
            match self.memory.read(address, &mut bytes) {
                Ok(()) => out.put(format_args!("\"{}\"", text(&bytes))),
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => out.put(format_args!("<{error}>")),
            }
            return Ok(());
        }
        if depth > DEPTH_MAX {
            out.put(format_args!("{{...}}"));
            return Ok(());
        }
        out.put(format_args!("{{"));
        for index in 0..count.min(ELEMENTS_MAX) {
            if index > 0 {
                out.put(format_args!(", "));
            }
            let at = address.wrapping_add(size.wrapping_mul(index));
            self.place(at, element, None, depth + 1, out)?;
            if out.is_full() {
                break;
            }
        }
        let more = if count > ELEMENTS_MAX { ", ..." } else { "" };
        out.put(format_args!("{more}}}"));
        Ok(())
    }

    /// Shows a number as its type has it.
    fn number(&self, number: u64, of: Type, out: &mut Out) {
        let btf = self.kernel.btf();
        let size = self.size(of).unwrap_or(8);
        let kind = btf.get(btf.resolve(of.id)).map(|one| one.kind);
        if of.pointers > 0 || matches!(kind, Some(Kind::Pointer(_))) {
            out.put(format_args!("{number:#x}"));
            if let Some(name) = self.scope.describe(number) {
                out.put(format_args!(" <{name}>"));
            }
            return;
        }
        match kind {
            Some(Kind::Int(Encoding::Signed)) => out.put(format_args!("{}", signed(number, size))),
            Some(Kind::Int(Encoding::Boolean)) => out.put(format_args!("{}", number != 0)),
            Some(Kind::Enum(values)) => {
                let named = values.iter().find(|(_, value)| *value == number);
                match named {
                    Some((name, _)) => out.put(format_args!("{}", text(name))),
                    None => out.put(format_args!("{number}")),
                }
            }
            // An address that has no type of its own is one all the same.
            Some(Kind::Int(_)) if size == 8 && number >> 48 == 0xffff => self.untyped(number, out),
            _ => out.put(format_args!("{number}")),
        }
    }
}

const fn signed(number: u64, size: u64) -> i64 {
    let unused = match size {
        1 => 56,
        2 => 48,
        4 => 32,
        _ => 0,
    };
    (number << unused) as i64 >> unused
}

/// Text in the making.
struct Out {
    text: String,
    lines: usize,
}

impl Out {
    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _infallible = self.text.write_fmt(arguments);
    }

    const fn is_full(&self) -> bool {
        self.lines >= LINES_MAX || self.text.len() >= LETTERS_MAX
    }

    fn line(&mut self, depth: usize) {
        self.lines += 1;
        self.put(format_args!("\n{:1$}", "", 2 * depth));
    }
}
