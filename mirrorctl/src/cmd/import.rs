//! `mirrorctl import`: reads the files, prints the manifest, writes the passwords' files. Asks no coordinator.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::app::{self, App};
use crate::cli::{Format, ImportArgs, ImportCommand};
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::import::{
    self, FAILED, IMPORT_BYTES_MAX, INCLUDED_FILES_MAX, Imported, Settings, matches_name, secrets,
};
use crate::{names, yaml};

pub(super) fn run(app: &App, command: ImportCommand) -> Outcome<Exit> {
    let imported = match command {
        ImportCommand::Seed { file, args } => import::seed(&settings(args)?, &named(&file), &text(&file)?)?,
        ImportCommand::Tunasync { file, args } => {
            let text = text(&file)?;
            let directory = file.parent().unwrap_or_else(|| Path::new("")).to_owned();
            let mut left = IMPORT_BYTES_MAX.saturating_sub(text.len() as u64);
            let mut included = |pattern: &str| included(&directory, pattern, &mut left);
            import::tunasync(&settings(args)?, &named(&file), &text, &mut included)?
        }
        ImportCommand::Crontab { file, system, args } => {
            import::crontab(&settings(args)?, &named(&file), &text(&file)?, system)?
        }
    };
    print(app, &imported)
}

fn settings(args: ImportArgs) -> Outcome<Settings> {
    // The manifest may be read elsewhere than it was written.
    let absolute = |directory: PathBuf| {
        std::path::absolute(&directory).map_err(|error| {
            let text = format!("{}: {error}", directory.display());
            Fault::of_input(FAILED, vec![("--secrets-dir".to_owned(), text)])
        })
    };
    Ok(Settings {
        origin: args.origin.map(|agent| names::last(&agent).to_owned()),
        map_roots: args.map_roots,
        secrets_dir: args.secrets_dir.map(absolute).transpose()?,
        time_zone: args.time_zone,
    })
}

fn print(app: &App, imported: &Imported) -> Outcome<Exit> {
    // Files first: a manifest that names missing ones is of no use.
    secrets::write(&imported.secrets)?;
    let manifest = &imported.manifest;
    let text = match app.global.output {
        Format::Json => manifest.to_json(),
        Format::Yaml => yaml::document(&manifest.to_value())?,
        Format::Name => {
            manifest.projects.iter().map(|one| format!("{}\n", names::last(&one.project.name))).collect()
        }
        _ => manifest.to_toml(),
    };
    if !app.global.quiet {
        imported.notes.iter().for_each(|note| app::note(note));
    }
    app.print(&text)?;
    app.hint("Next: mirrorctl plan -f FILE, where FILE is what was printed; then mirrorctl apply -f FILE");
    Ok(Exit::Done)
}

fn named(file: &Path) -> String {
    file.display().to_string()
}

fn text(file: &Path) -> Outcome<String> {
    let read = if file == Path::new("-") {
        limited(io::stdin(), IMPORT_BYTES_MAX)
    } else {
        File::open(file).and_then(|file| limited(file, IMPORT_BYTES_MAX))
    };
    read.map_err(|error| {
        Fault::of_input(FAILED, vec![("FILE".to_owned(), format!("{}: {error}", file.display()))])
    })
}

fn limited(from: impl Read, bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    from.take(bytes.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > bytes {
        return Err(io::Error::other(format!("more than {IMPORT_BYTES_MAX} bytes in all are not read")));
    }
    Ok(text)
}

/// The files that a pattern names, in the order of their names: `*` and `?` in its last part, as people use them.
/// A relative one counts from the directory of the file that names it.
fn included(directory: &Path, pattern: &str, left: &mut u64) -> Result<Vec<(String, String)>, String> {
    let whole = directory.join(pattern);
    let (Some(parent), Some(last)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str()))
    else {
        return Err("names no file".to_owned());
    };
    if parent.to_string_lossy().contains(['*', '?', '[']) || last.contains('[') {
        return Err("only * and ? in its last part are understood; give the files one by one".to_owned());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(parent).map_err(|error| format!("{}: {error}", parent.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| matches_name(last, name)) {
            paths.push(path);
        }
        if paths.len() > INCLUDED_FILES_MAX {
            return Err(format!("names more than {INCLUDED_FILES_MAX} files"));
        }
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let text = File::open(&path)
            .and_then(|file| limited(file, *left))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        *left = left.saturating_sub(text.len() as u64);
        files.push((path.display().to_string(), text));
    }
    Ok(files)
}
