//! The map in ARCHITECTURE.md: every file is on it, and imports only from below itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A module of the crate as its path from the root of the crate: `["sync", "pass"]`.
type Module = Vec<String>;

/// Every module of the crate but its root, with its code.
fn sources() -> BTreeMap<Module, String> {
    let src = root().join("src");
    let mut folders = vec![src.clone()];
    let mut sources = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&src).unwrap().with_extension("");
                let mut module: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                module.pop_if(|last| last == "mod");
                sources.insert(module, code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.remove(["lib".to_owned()].as_slice());
    sources
}

/// A file's text without comments that have a line of their own, and without its unit tests, which end a file.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.map(|line| format!("{line}\n")).collect();
    code.split("#[cfg(test)]\nmod ").next().unwrap().to_owned()
}

/// One line of the map.
#[derive(Debug)]
struct Mapped {
    module: Module,
    layer: String,
}

/// The map in ARCHITECTURE.md, top to bottom. An indented line is in the folder above it that is indented less; a line
/// indented as far as the descriptions continues one.
fn map() -> Vec<Mapped> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a map");
    let mut layer = String::from("shell");
    let mut map = Vec::new();
    let mut folders: Module = Vec::new();
    for line in block.lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        if let Some(heading) = line.strip_prefix("-- ") {
            layer = heading.split(':').next().unwrap().to_owned();
        } else if let Some(name) = line.split_whitespace().next().filter(|_| depth <= 3) {
            folders.truncate(depth);
            folders.push(name.trim_end_matches('/').trim_end_matches(".rs").to_owned());
            map.push(Mapped { module: folders.clone(), layer: layer.clone() });
        }
    }
    map
}

/// The paths that a `use` or a path in an expression names after a prefix such as `crate::`, with groups taken apart:
/// `{plan, store::{Budget, Upload}}` is `plan`, `store::Budget` and `store::Upload`.
fn expand(rest: &str) -> Vec<Vec<String>> {
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        let mut items = vec![String::new()];
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => items.push(String::new()),
                c => items.last_mut().unwrap().push(c),
            }
            depth += i32::from(c == '{') - i32::from(c == '}');
        }
        return items.iter().flat_map(|item| expand(item.trim())).collect();
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if name.is_empty() {
        return if rest.starts_with('*') { vec![vec!["*".to_owned()]] } else { Vec::new() };
    }
    let inner = rest.strip_prefix("::").map(expand).unwrap_or_default();
    match inner.is_empty() {
        true => vec![vec![name.to_owned()]],
        false => inner.into_iter().map(|path| [vec![name.to_owned()], path].concat()).collect(),
    }
}

/// What `code` of `module` names by `crate::` or `super::`, as paths from the root of the crate.
fn imports(module: &Module, code: &str) -> BTreeSet<Vec<String>> {
    let starts_a_path = |at: usize| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    };
    let mut imports = BTreeSet::new();
    for prefix in ["crate::", "super::"] {
        for (at, _) in code.match_indices(prefix).filter(|(at, _)| starts_a_path(*at)) {
            let mut base = if prefix == "crate::" { &[] } else { &module[..module.len() - 1] };
            let mut rest = &code[at + prefix.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                (base, rest) = (&base[..base.len() - 1], further);
            }
            imports.extend(expand(rest).into_iter().map(|path| [base, &path].concat()));
        }
    }
    imports
}

/// The items that a folder's root takes from its own files, each with its file: to import one from the root is to
/// import it from there.
fn taken_from_children(code: &str, children: &BTreeSet<String>) -> BTreeMap<String, String> {
    let uses = code.match_indices("use ").map(|(at, found)| &code[at + found.len()..]);
    let paths = uses.flat_map(|rest| expand(rest.strip_prefix("self::").unwrap_or(rest)));
    let of_children = paths.filter(|path| path.len() > 1 && children.contains(&path[0]));
    of_children.map(|path| (path.last().unwrap().clone(), path[0].clone())).collect()
}

#[test]
fn the_map_names_every_file_and_nothing_else() {
    let mapped: BTreeSet<_> = map().into_iter().map(|mapped| mapped.module).collect();
    let sources = sources();
    let missing: Vec<_> = sources.keys().filter(|module| !mapped.contains(*module)).collect();
    assert!(missing.is_empty(), "not in the map of ARCHITECTURE.md: {missing:?}");
    let gone: Vec<_> = mapped.iter().filter(|module| !sources.contains_key(*module)).collect();
    assert!(gone.is_empty(), "in the map of ARCHITECTURE.md, but not in src/: {gone:?}");
}

#[test]
fn a_file_imports_only_from_below_itself_and_never_sideways_between_edges() {
    let map = map();
    let place = |module: &str| map.iter().position(|mapped| mapped.module == [module]);
    let mut offences = Vec::new();
    let mut seen = 0;
    for (module, code) in &sources() {
        let own = place(&module[0]).unwrap_or_else(|| panic!("{module:?} is not in the map"));
        for import in imports(module, code) {
            let Some(other) = place(&import[0]).filter(|other| *other != own) else { continue };
            seen += 1;
            // The one exception: the proof that an upload is complete and verified.
            if module[0] == "store" && import == ["archive", "Verified"] {
                continue;
            }
            let is_sideways = map[own].layer == "edges" && map[other].layer == "edges";
            let is_client_of_the_emulator = module[0] == "emulator" && map[other].layer != "core";
            if other < own || is_sideways || is_client_of_the_emulator {
                offences.push(format!("{}: crate::{}", module.join("/"), import.join("::")));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were found: the search is broken");
    assert_eq!(offences, [] as [String; 0], "see the map in ARCHITECTURE.md");
}

#[test]
fn inside_a_folder_a_file_imports_from_below_or_types_and_constants_of_its_root() {
    let map = map();
    let place = |module: &[String]| map.iter().position(|mapped| mapped.module == module);
    let sources = sources();
    let mut offences = Vec::new();
    let mut seen = 0;
    for (module, code) in &sources {
        for import in imports(module, code) {
            let depth = module.iter().zip(&import).take_while(|(own, other)| own == other).count();
            // Another top-level module, the file itself, or a root that imports from its own files.
            if depth == 0 || depth == module.len() || depth == import.len() {
                continue;
            }
            let (folder, item) = (&module[..depth], &import[depth]);
            let children: BTreeSet<_> = sources
                .keys()
                .filter(|other| other.starts_with(folder))
                .filter_map(|it| it.get(depth))
                .cloned()
                .collect();
            let taken = sources.get(folder).map(|code| taken_from_children(code, &children)).unwrap_or_default();
            let file = children.get(item).or_else(|| taken.get(item));
            let is_allowed = match file {
                Some(file) => {
                    let other = [folder, std::slice::from_ref(file)].concat();
                    place(&module[..=depth]) <= place(&other)
                }
                None => item.starts_with(char::is_uppercase),
            };
            seen += 1;
            if !is_allowed {
                offences.push(format!("{}: {}", module.join("/"), import.join("::")));
            }
        }
    }
    assert!(seen > 0, "only {seen} imports were found: the search is broken");
    assert_eq!(offences, [] as [String; 0], "see the map in ARCHITECTURE.md");
}

#[test]
fn the_core_names_no_runtime_no_network_no_database() {
    let core: BTreeSet<_> =
        map().into_iter().filter(|mapped| mapped.layer == "core").map(|mapped| mapped.module[0].clone()).collect();
    assert!(core.contains("plan") && core.contains("config"), "{core:?}");
    for (module, code) in sources().iter().filter(|(module, _)| core.contains(&module[0])) {
        for banned in ["tokio", "futures", "reqwest", "axum", "hyper", "sqlx", "object_store"] {
            assert!(!code.contains(&format!("{banned}::")), "{} names {banned}", module.join("/"));
        }
    }
}

#[test]
fn only_the_command_line_prints() {
    let printing = ["println!", "print!", "eprintln!", "eprint!", "io::stdout()"];
    for (module, code) in &sources() {
        let prints = printing.iter().any(|word| code.contains(word));
        assert!(!prints || ["cli", "main"].contains(&module[0].as_str()), "{} prints", module.join("/"));
    }
}
