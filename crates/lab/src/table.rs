//! Tables in novaclient's shape.

use std::fmt::Write;

/// Rows under a header, bordered with `+`, `-` and `|`, cells left-aligned.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let border: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, &width) in cells.zip(&widths) {
            let _ = write!(line, "| {cell:width$} ");
        }
        line + "|\n"
    };
    let mut text = border.clone() + &line(&mut header.iter().copied()) + &border;
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text + &border
}

/// A `Property | Value` table, sorted by property.
pub fn properties(pairs: &[(&str, String)]) -> String {
    let mut rows: Vec<Vec<String>> =
        pairs.iter().map(|(property, value)| vec![(*property).to_owned(), value.clone()]).collect();
    rows.sort();
    render(&["Property", "Value"], &rows)
}

#[cfg(test)]
mod tests {
    use super::render;

    /// The tutorial's `nova volume-list | egrep "drbd|^\+"`, its header line added.
    #[test]
    fn volume_list_is_the_tutorials() {
        let row = |id: &str, name: &str| {
            [id, "available", name, "100", "SATA", "                                    "]
                .map(str::to_owned)
                .to_vec()
        };
        let header = ["ID", "Status", "Display Name", "Size", "Volume Type", "Attached to"];
        let rows = [
            row("00e03044-9a3b-4c53-a558-bf8f0cd560f4", "drbd1"),
            row("cf5e1aae-3e96-4aa1-a69b-412c9339fac8", "drbd0"),
        ];
        let expected = "\
+--------------------------------------+-----------+--------------+------+-------------+--------------------------------------+
| ID                                   | Status    | Display Name | Size | Volume Type | Attached to                          |
+--------------------------------------+-----------+--------------+------+-------------+--------------------------------------+
| 00e03044-9a3b-4c53-a558-bf8f0cd560f4 | available | drbd1        | 100  | SATA        |                                      |
| cf5e1aae-3e96-4aa1-a69b-412c9339fac8 | available | drbd0        | 100  | SATA        |                                      |
+--------------------------------------+-----------+--------------+------+-------------+--------------------------------------+
";
        assert_eq!(render(&header, &rows), expected);
    }
}
