//! Tables of text.

/// Rows of cells in columns: the first ones, as many as `labels` says, flush left, all others flush right.
pub(super) fn aligned(rows: &[Vec<String>], labels: usize) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let (width, separator) = (width(column), if column == 0 { "" } else { "  " });
            text += &match column < labels {
                true => format!("{separator}{cell:<width$}"),
                false => format!("{separator}{cell:>width$}"),
            };
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text
}
