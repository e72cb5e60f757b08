//! Reads `include/smp.h`: what it declares and how each declaration is documented.

#![allow(dead_code)]

/// A constant: `#define NAME VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    pub name: String,
    pub value: String,
    pub doc: String,
}

/// A function with the types and names of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub result: String,
    pub parameters: Vec<(String, String)>,
    pub doc: String,
}

/// An opaque type.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque {
    pub name: String,
    pub doc: String,
}

/// Everything that a header declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    pub constants: Vec<Constant>,
    pub functions: Vec<Function>,
    pub opaques: Vec<Opaque>,
    /// Types of functions of the host; `smp_callbacks.h` alone has any.
    pub callbacks: Vec<Callback>,
}

/// The type of a function of the host: `typedef RESULT (*NAME)(PARAMETERS)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    pub name: String,
    pub signature: String,
    pub doc: String,
}

/// Reads a header. What lies outside of the subset that MATLAB loads is an error that quotes it.
pub fn parse(text: &str) -> Result<Header, String> {
    read(text, Header::default(), false)
}

/// Reads `smp_callbacks.h`, which knows the types of `smp.h` and has types of functions besides.
pub fn parse_callbacks(text: &str, known: &Header) -> Result<Header, String> {
    let mut header = read(text, Header { opaques: known.opaques.clone(), ..Header::default() }, true)?;
    header.opaques.retain(|opaque| !known.opaques.contains(opaque));
    Ok(header)
}

fn read(text: &str, mut header: Header, has_callbacks: bool) -> Result<Header, String> {
    let mut doc = String::new();
    let mut declaration = String::new();
    let mut is_cplusplus = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with("/*") {
            let mut comment = vec![line];
            while !comment.last().is_some_and(|line| line.ends_with("*/")) {
                comment.push(lines.next().ok_or("a comment does not end")?.trim());
            }
            let clean = |line: &&str| {
                line.trim_start_matches("/**").trim_start_matches("/*").trim_end_matches("*/").trim_start_matches('*').to_owned()
            };
            doc = comment.iter().map(clean).collect::<Vec<_>>().join("\n");
            continue;
        }
        // The one place where C++ may differ is its linkage.
        if line == "#ifdef __cplusplus" {
            is_cplusplus = true;
        } else if is_cplusplus {
            match line {
                "#endif" => is_cplusplus = false,
                "extern \"C\" {" | "}" => {}
                _ => return Err(format!("only linkage may differ in C++: {line}")),
            }
        } else if let Some(rest) = line.strip_prefix("#define ") {
            if let Some((name, value)) = rest.split_once(' ') {
                header.constants.push(Constant { name: name.to_owned(), value: value.trim().to_owned(), doc: std::mem::take(&mut doc) });
            } else if !rest.ends_with("_H") {
                return Err(format!("a constant without a value: {line}"));
            }
        } else if line.starts_with('#') {
            let include = if has_callbacks { "#include \"smp.h\"" } else { "#include <stdint.h>" };
            if !(line == include || line.starts_with("#ifndef ") || line == "#endif") {
                return Err(format!("not a directive for this header: {line}"));
            }
        } else if !line.is_empty() {
            declaration.push_str(line);
            declaration.push(' ');
            if line.ends_with(';') {
                let text = declaration.trim().trim_end_matches(';');
                match text.strip_prefix("typedef ").filter(|_| has_callbacks).and_then(|text| text.split_once("(*")) {
                    Some((result, rest)) => {
                        let (name, parameters) = rest.split_once(')').ok_or_else(|| format!("not a type of functions: {text}"))?;
                        let signature = format!("{}{parameters}", result.trim());
                        header.callbacks.push(Callback { name: name.to_owned(), signature, doc: std::mem::take(&mut doc) });
                    }
                    None => declare(&mut header, text, std::mem::take(&mut doc))?,
                }
                declaration.clear();
            }
        }
    }
    if declaration.is_empty() { Ok(header) } else { Err(format!("trailing text: {declaration}")) }
}

fn declare(header: &mut Header, text: &str, doc: String) -> Result<(), String> {
    if let Some(rest) = text.strip_prefix("typedef ") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        return match words.as_slice() {
            ["struct", tag, name] if tag == name => {
                header.opaques.push(Opaque { name: (*name).to_owned(), doc });
                Ok(())
            }
            _ => Err(format!("not an opaque struct with one name: {text}")),
        };
    }
    let (head, rest) = text.split_once('(').ok_or_else(|| format!("neither type nor function: {text}"))?;
    let list = rest.strip_suffix(')').ok_or_else(|| format!("not a plain function: {text}"))?;
    let (result, name) = typed_name(head)?;
    let parameters = match list.trim() {
        "" => return Err(format!("write (void) for no parameters: {text}")),
        "void" => Vec::new(),
        list => list.split(',').map(typed_name).collect::<Result<Vec<_>, _>>()?,
    };
    for kind in parameters.iter().map(|(kind, _)| kind).chain([&result]) {
        let plain = kind.trim_start_matches("const ").trim_end_matches('*');
        let is_known = header.opaques.iter().any(|opaque| opaque.name == plain) || header.callbacks.iter().any(|known| known.name == plain);
        if plain.starts_with("smp_") && !is_known {
            return Err(format!("{plain} is used before it is declared: {text}"));
        }
    }
    header.functions.push(Function { name, result, parameters, doc });
    Ok(())
}

/// `const struct smp_x *name` as (`const smp_x*`, `name`).
fn typed_name(text: &str) -> Result<(String, String), String> {
    let text = text.trim();
    let start = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    let (kind, name) = text.split_at(start);
    if kind.trim().is_empty() || name.is_empty() {
        return Err(format!("a type and a name are expected: {text}"));
    }
    let kind = kind.replace('*', " * ");
    let words: Vec<&str> = kind.split_whitespace().filter(|word| *word != "struct").collect();
    Ok((words.join(" ").replace(" *", "*"), name.to_owned()))
}
