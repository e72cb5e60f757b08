//! `~` and `$VAR` in paths.
//!
//! A leading `~` is the home folder, `$NAME` and `${NAME}` are variables of the environment, `$$` is a dollar. A variable that is not set
//! is an error and not nothing: `$SCRATCH/patients` must never become `/patients`.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// Expands `~` and `$VAR` in a path.
pub fn expand(path: &str) -> Result<PathBuf> {
    expand_with(path, &|name| std::env::var(name).ok(), std::env::home_dir())
}

fn expand_with(path: &str, variable: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<PathBuf> {
    let (home, mut rest) = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home =
                home.filter(|home| home.is_absolute()).ok_or_else(|| invalid("the home folder is not known, so ~ has no meaning"))?;
            (Some(home), rest.trim_start_matches('/'))
        }
        Some(_) => return Err(invalid("a path begins with ~ and a name; only one's own home is expanded")),
        None => (None, path),
    };
    let mut expanded = String::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, remaining) = take_name(after)?;
        match name {
            "$" => expanded.push('$'),
            name => {
                let value = variable(name).filter(|value| !value.is_empty() && !value.contains('\0'));
                expanded.push_str(&value.ok_or_else(|| invalid(format!("the variable {name} in a path is not set")))?);
            }
        }
        rest = remaining;
    }
    expanded.push_str(rest);
    if expanded.contains('\0') {
        return Err(invalid("a path holds a NUL"));
    }
    match home {
        Some(home) if expanded.is_empty() => Ok(home),
        // A variable with a slash in front must not throw the home away.
        Some(home) => Ok(home.join(expanded.trim_start_matches('/'))),
        None if expanded.is_empty() => Err(invalid("a path is empty")),
        None => Ok(PathBuf::from(expanded)),
    }
}

/// The name after a dollar and what follows it.
fn take_name(after: &str) -> Result<(&str, &str)> {
    if let Some(rest) = after.strip_prefix('$') {
        return Ok(("$", rest));
    }
    let (name, rest) = match after.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or_else(|| invalid("a path has ${ without }"))?,
        None => after.split_at(after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len())),
    };
    // Quoted in the error, hence plain letters only.
    let is_name =
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty() || !is_name || name.len() > 128 {
        return Err(invalid("a path has $ without the name of a variable").with_hint("write $$ for a dollar"));
    }
    Ok((name, rest))
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::ConfigInvalidValue, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(path: &str) -> Result<String> {
        let variable = |name: &str| match name {
            "SCRATCH" => Some("/scratch/me".to_owned()),
            "N_1" => Some("seven".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Ok(expand_with(path, &variable, Some("/home/me".into()))?.to_str().unwrap().to_owned())
    }

    #[test]
    fn home_and_variables_are_put_in() {
        for (path, expected) in [
            ("~", "/home/me"),
            ("~/x", "/home/me/x"),
            ("~//etc", "/home/me/etc"),
            ("/a~b/~", "/a~b/~"),
            ("$SCRATCH/x", "/scratch/me/x"),
            ("${SCRATCH}x", "/scratch/mex"),
            ("/a/$N_1-b", "/a/seven-b"),
            ("~/$N_1", "/home/me/seven"),
            ("~/$SCRATCH", "/home/me/scratch/me"),
            ("/a/$$b", "/a/$b"),
            ("relative/ä", "relative/ä"),
        ] {
            assert_eq!(expanded(path).unwrap(), expected);
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_an_error() {
        for path in ["$UNSET/x", "${UNSET}", "$EMPTY/x", "/a/$", "/a/$/b", "${", "${}", "${a b}", "$1", "~else/x", ""] {
            assert_eq!(expanded(path).unwrap_err().kind(), Kind::ConfigInvalidValue, "{path}");
        }
        assert_eq!(expanded("$UNSET/x").unwrap_err().detail(), "the variable UNSET in a path is not set");
        assert!(expand_with("~/x", &|_| None, None).is_err());
    }
}
