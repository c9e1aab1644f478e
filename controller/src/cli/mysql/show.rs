//! What the server answered, as people and scripts read it.

use std::io::{self, Write};

use comfy_table::LineStyle;
use mysql_async::consts::ColumnType;
use mysql_async::{Column, Value};
use serde_json::{Map, Number};

use super::Format;

/// Writes one result set.
pub(super) fn rows(
    out: &mut impl Write,
    format: Format,
    vertical: bool,
    columns: &[Column],
    rows: Vec<Vec<Value>>,
) -> io::Result<()> {
    match format {
        Format::Table if vertical => lines(out, columns, rows),
        Format::Table => table(out, columns, rows),
        Format::Tsv => tsv(out, rows),
        Format::Json => json(out, columns, rows),
    }
}

fn table(out: &mut impl Write, columns: &[Column], rows: Vec<Vec<Value>>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    // As the `mysql` client draws it.
    let line =
        comfy_table::presets::ASCII_FULL_CONDENSED.header_separator(LineStyle::new('+', '-', '+', '+'));
    table.load_style(line);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.name_str().into_owned()));
    for row in rows {
        let cells = row.into_iter().zip(columns);
        table.add_row(cells.map(|(value, column)| {
            let cell = comfy_table::Cell::new(for_people(&value, column));
            if is_number(column) { cell.set_alignment(comfy_table::CellAlignment::Right) } else { cell }
        }));
    }
    writeln!(out, "{table}")
}

fn lines(out: &mut impl Write, columns: &[Column], rows: Vec<Vec<Value>>) -> io::Result<()> {
    let width = columns.iter().map(|column| column.name_str().chars().count()).max().unwrap_or(0);
    for (number, row) in rows.into_iter().enumerate() {
        writeln!(out, "{:*^1$}", format!(" {}. row ", number + 1), 60)?;
        for (value, column) in row.iter().zip(columns) {
            writeln!(out, "{:>width$}: {}", column.name_str(), for_people(value, column))?;
        }
    }
    Ok(())
}

fn tsv(out: &mut impl Write, rows: Vec<Vec<Value>>) -> io::Result<()> {
    for row in rows {
        for (number, value) in row.iter().enumerate() {
            if number > 0 {
                out.write_all(b"\t")?;
            }
            match value {
                Value::Bytes(bytes) => escaped(out, bytes)?,
                Value::NULL => out.write_all(b"NULL")?,
                other => write!(out, "{}", other.as_sql(true))?,
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// As the `mysql` client does it in batch mode.
fn escaped(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        match byte {
            b'\t' => out.write_all(b"\\t")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\\' => out.write_all(b"\\\\")?,
            0 => out.write_all(b"\\0")?,
            other => out.write_all(&[*other])?,
        }
    }
    Ok(())
}

fn json(out: &mut impl Write, columns: &[Column], rows: Vec<Vec<Value>>) -> io::Result<()> {
    let names = unique_names(columns);
    let all: Vec<Map<String, serde_json::Value>> = rows
        .into_iter()
        .map(|row| {
            let values = row.into_iter().zip(columns);
            names.iter().cloned().zip(values.map(|(value, column)| for_scripts(&value, column))).collect()
        })
        .collect();
    serde_json::to_writer(&mut *out, &all)?;
    writeln!(out)
}

/// Two columns of one name would be one field.
fn unique_names(columns: &[Column]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let plain = column.name_str().into_owned();
        let mut name = plain.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{plain}_{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

fn is_number(column: &Column) -> bool {
    column.column_type().is_numeric_type()
}

fn for_people(value: &Value, column: &Column) -> String {
    match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(bytes) => text_or_hex(bytes, column),
        other => other.as_sql(true),
    }
}

fn text_or_hex(bytes: &[u8], column: &Column) -> String {
    let bits = column.column_type() == ColumnType::MYSQL_TYPE_BIT;
    match std::str::from_utf8(bytes) {
        Ok(text) if !bits => text.to_owned(),
        _ => bytes.iter().fold(String::from("0x"), |text, byte| text + &format!("{byte:02X}")),
    }
}

/// Whole numbers and floating ones are numbers, JSON is itself, everything else is text: a decimal keeps its digits.
fn for_scripts(value: &Value, column: &Column) -> serde_json::Value {
    let Value::Bytes(bytes) = value else { return serde_json::Value::Null };
    let text = text_or_hex(bytes, column);
    let parsed = match column.column_type() {
        ColumnType::MYSQL_TYPE_TINY
        | ColumnType::MYSQL_TYPE_SHORT
        | ColumnType::MYSQL_TYPE_INT24
        | ColumnType::MYSQL_TYPE_LONG
        | ColumnType::MYSQL_TYPE_LONGLONG
        | ColumnType::MYSQL_TYPE_YEAR => match text.parse::<u64>() {
            Ok(number) => Some(number.into()),
            Err(_) => text.parse::<i64>().ok().map(Into::into),
        },
        ColumnType::MYSQL_TYPE_FLOAT | ColumnType::MYSQL_TYPE_DOUBLE => {
            text.parse().ok().and_then(Number::from_f64).map(serde_json::Value::Number)
        }
        ColumnType::MYSQL_TYPE_JSON => serde_json::from_str(&text).ok(),
        _ => None,
    };
    parsed.unwrap_or(serde_json::Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::consts::ColumnType::*;

    fn shown(
        format: Format,
        vertical: bool,
        columns: &[(&str, ColumnType)],
        values: Vec<Option<&[u8]>>,
    ) -> String {
        let columns: Vec<Column> =
            columns.iter().map(|(name, kind)| Column::new(*kind).with_name(name.as_bytes())).collect();
        let values =
            values.into_iter().map(|v| v.map_or(Value::NULL, |bytes| Value::Bytes(bytes.to_vec()))).collect();
        let mut out = Vec::new();
        rows(&mut out, format, vertical, &columns, vec![values]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_kinds() {
        let columns =
            [("n", MYSQL_TYPE_LONGLONG), ("n", MYSQL_TYPE_NEWDECIMAL), ("t", MYSQL_TYPE_VAR_STRING)];
        let text = shown(Format::Json, false, &columns, vec![Some(b"-3"), Some(b"1.50"), None]);
        assert_eq!(text, "[{\"n\":-3,\"n_2\":\"1.50\",\"t\":null}]\n");
    }

    #[test]
    fn text_is_escaped_and_shown_as_lines() {
        let columns = [("a", MYSQL_TYPE_VAR_STRING), ("bb", MYSQL_TYPE_BLOB)];
        let values = || vec![Some(&b"x\ty\n"[..]), Some(&b"\xff"[..])];
        assert_eq!(shown(Format::Tsv, false, &columns[..1], vec![Some(b"x\ty\n")]), "x\\ty\\n\n");
        let text = shown(Format::Table, true, &columns, values());
        assert!(text.ends_with(" a: x\ty\n\nbb: 0xFF\n"), "{text}");
    }
}
