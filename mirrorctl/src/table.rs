//! Tables: columns two blanks apart, wide enough for their widest cell, never wrapped. Names are never cut; only the
//! last column may be, and only on a terminal.

use crate::term::{Color, View};
use crate::units::clean;

/// Blanks between columns.
const GAP: usize = 2;

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    color: Option<Color>,
}

impl Cell {
    /// A cell in a colour.
    pub fn colored(text: impl AsRef<str>, color: Option<Color>) -> Self {
        Self { text: clean(text.as_ref()), color }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: clean(text.as_ref()), color: None }
    }
}

/// A table that is being filled.
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<Cell>,
    right: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads; a head that begins with `>` makes its column right-aligned.
    pub fn new<S: AsRef<str>>(heads: impl IntoIterator<Item = S>) -> Self {
        let heads: Vec<S> = heads.into_iter().collect();
        let right = heads.iter().map(|head| head.as_ref().starts_with('>')).collect();
        let heads = heads.iter().map(|head| Cell::from(head.as_ref().trim_start_matches('>'))).collect();
        Self { heads, right, rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are heads.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.heads.len(), "a row has a cell for each head");
        self.rows.push(cells);
    }

    /// The table as text, one line a row.
    #[must_use]
    pub fn render(&self, view: &View) -> String {
        let mut widths: Vec<usize> = self.heads.iter().map(Cell::width).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&self.heads).chain(&self.rows) {
            self.line(view, &widths, row, &mut text);
        }
        text
    }

    fn line(&self, view: &View, widths: &[usize], row: &[Cell], text: &mut String) {
        let last = row.len().saturating_sub(1);
        let before_last: usize = widths.iter().take(last).map(|width| width + GAP).sum();
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[index].saturating_sub(cell.width()));
            if index > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let shown = if index == last && view.terminal && !self.right[index] {
                cut(view, &cell.text, view.width.saturating_sub(before_last))
            } else {
                cell.text.clone()
            };
            let painted = view.paint(cell.color, &shown);
            if self.right[index] {
                line.push_str(&padding);
                line.push_str(&painted);
            } else {
                line.push_str(&painted);
                line.push_str(&padding);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Text of at most `width` columns, its end replaced by an ellipsis where it is longer.
#[must_use]
pub fn cut(view: &View, text: &str, width: usize) -> String {
    /// Less than this says nothing; then the line may be too long.
    const WIDTH_MIN: usize = 8;
    let width = width.max(WIDTH_MIN);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = width - view.ellipsis().chars().count();
    text.chars().take(kept).chain(view.ellipsis().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(terminal: bool) -> View {
        View {
            now: chrono::DateTime::UNIX_EPOCH,
            width: 20,
            color: false,
            unicode: true,
            absolute: false,
            wide: false,
            terminal,
        }
    }

    fn table() -> Table {
        let mut table = Table::new(["NAME", ">N", "NOTE"]);
        table.row(["a-long-name".into(), "7".into(), "a sentence of some words".into()]);
        table.row(["b".into(), "10".into(), "".into()]);
        table
    }

    #[test]
    fn columns_align_and_lines_have_no_trailing_blanks() {
        let text = table().render(&view(false));
        assert_eq!(
            text,
            "NAME          N  NOTE\na-long-name   7  a sentence of some words\nb            10\n"
        );
    }

    #[test]
    fn only_a_terminal_cuts_and_only_the_last_column() {
        let text = table().render(&view(true));
        assert!(text.contains("a-long-name   7  a sente…\n"), "{text}");
    }

    #[test]
    fn control_bytes_of_others_do_not_reach_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(["\x1b[31mred".into()]);
        assert_eq!(table.render(&view(true)), "NAME\n\\x1B[31mred\n");
    }
}
