//! Finds the fenced `sh` blocks in a prompt. Pure.

/// The contents of every block fenced as ```` ```sh ````, in order. A fence that is never closed is no block.
pub(super) fn sh_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(char, usize, bool, String)> = None;
    for line in text.lines() {
        let fence = fence_of(line);
        match (&mut open, fence) {
            (None, Some((mark, length, info))) => open = Some((mark, length, info == "sh", String::new())),
            (Some((mark, length, is_sh, body)), Some((m, l, ""))) if m == *mark && l >= *length => {
                if *is_sh {
                    blocks.push(std::mem::take(body));
                }
                open = None;
            }
            (Some((_, _, _, body)), _) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// A line's fence: its mark, its length, and the first word after it.
fn fence_of(line: &str) -> Option<(char, usize, &str)> {
    let stripped = line.trim_start_matches(' ');
    let mark = stripped.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = stripped.chars().take_while(|c| *c == mark).count();
    let indented = line.len() - stripped.len() > 3;
    if length < 3 || indented {
        return None;
    }
    Some((mark, length, stripped[length..].split_whitespace().next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::sh_blocks;

    #[test]
    fn only_closed_sh_fences_are_blocks_and_inner_fences_stay_text() {
        let text = "a\n```sh\necho 1\n```\n```python\nprint()\n```\n````sh\n```\necho 2\n````\n~~~sh\necho 3\n~~~\n```sh\nno end";
        assert_eq!(sh_blocks(text), ["echo 1\n", "```\necho 2\n", "echo 3\n"]);
        assert!(sh_blocks("```shell\nx\n```").is_empty());
    }
}
