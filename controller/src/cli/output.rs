//! Writing to stdout: lines and tables.

use std::io::{IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};

/// Writes one line. A reader that has gone away (`| head`) ends the process quietly.
pub fn line(text: impl AsRef<str>) {
    let mut stdout = anstream::stdout();
    if writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Whether stdout is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether stdout takes colours: only a terminal, and not with `NO_COLOR`.
pub fn colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How a cell is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to say.
    Plain,
    /// As it is to be.
    Good,
    /// On its way, or worth a look.
    Attention,
    /// Wrong.
    Bad,
}

/// The least width of a last column that is broken into lines.
const LEAST: u16 = 20;

/// A table without borders, as wide as its content; on a terminal its last column is broken into lines.
pub fn table(header: &[&str], rows: Vec<Vec<(String, Tone)>>) -> String {
    let colours = colours();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let head = |text: &&str| {
        let cell = Cell::new(text);
        if colours { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    if !header.is_empty() {
        table.set_header(header.iter().map(head).collect::<Vec<_>>());
    }
    for row in rows {
        table.add_row(row.into_iter().map(|(text, tone)| {
            let colour = match tone {
                Tone::Plain => None,
                Tone::Good => Some(Color::Green),
                Tone::Attention => Some(Color::Yellow),
                Tone::Bad => Some(Color::Red),
            };
            match colour.filter(|_| colours) {
                Some(colour) => Cell::new(text).fg(colour),
                None => Cell::new(text),
            }
        }));
    }
    let columns = table.column_count();
    // Only the last column is broken into lines, and only where enough is left for it.
    let others: u16 = table.column_max_content_widths().iter().rev().skip(1).map(|width| width + 2).sum();
    if table.width().is_some_and(|width| width >= others + LEAST) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_constraints(vec![ColumnConstraint::ContentWidth; columns.saturating_sub(1)]);
    }
    for at in 0..columns {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, if at + 1 == columns { 0 } else { 2 }));
        }
    }
    table.trim_fmt()
}
