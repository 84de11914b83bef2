//! A small table of numbers.

use std::fmt;

/// A heading for each column, and rows of a title and two numbers.
pub struct Table {
    head: [&'static str; 3],
    rows: Vec<(String, [Option<f64>; 2])>,
}

impl Table {
    /// Begins one.
    pub const fn new(head: [&'static str; 3]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, title: impl Into<String>, cells: [Option<f64>; 2]) {
        self.rows.push((title.into(), cells));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = self.rows.iter().map(|(title, _)| title.chars().count());
        let width = titles.chain([self.head[0].chars().count()]).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>10}  {:>10}", self.head[0], self.head[1], self.head[2])?;
        for (title, cells) in &self.rows {
            let [first, second] = cells.map(|cell| cell.map_or("-".to_owned(), number));
            writeln!(f, "{title:width$}  {first:>10}  {second:>10}")?;
        }
        Ok(())
    }
}

/// Whole numbers as such, others with two digits: an exact count that is none shows.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.strip_suffix(".00").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(["what", "one", "two"]);
        table.row("a long title", [Some(14.0), Some(0.256)]);
        table.row("b", [None, Some(123_456.0)]);
        let expected = "\
what                 one         two\n\
a long title          14        0.26\n\
b                      -      123456\n";
        assert_eq!(table.to_string(), expected);
    }
}
