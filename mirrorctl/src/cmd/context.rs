//! `mirrorctl context`.

use serde_json::{Map, json};

use crate::app::App;
use crate::cli::{ContextCommand, Format};
use crate::config::{self, Context};
use crate::exit::Exit;
use crate::fault::Outcome;
use crate::table::Table;
use crate::text::block;

pub(super) fn run(app: &App, command: ContextCommand) -> Outcome<Exit> {
    match command {
        ContextCommand::List => list(app),
        ContextCommand::Use { name } => {
            let path = config::use_context(&app.overrides(), &name)?;
            app.said(
                &format!("Context {name} is the current one in {}.", path.display()),
                "mirrorctl status",
            )?;
            Ok(Exit::Done)
        }
        ContextCommand::Show => show(app),
    }
}

fn list(app: &App) -> Outcome<Exit> {
    let overrides = app.overrides();
    let config = config::load(&overrides)?;
    let current = overrides.context.as_ref().or(config.current.as_ref());
    match app.global.output {
        Format::Json | Format::Yaml => {
            let contexts: Map<_, _> =
                config.contexts.iter().map(|(name, context)| (name.clone(), as_json(context))).collect();
            app.answer_json(&json!({"current": current, "contexts": contexts}))?;
        }
        Format::Name => {
            app.print(&config.contexts.keys().map(|name| format!("{name}\n")).collect::<String>())?;
        }
        Format::Table | Format::Wide if config.contexts.is_empty() => {
            let path = config::path(&overrides);
            app.print(&format!("No contexts in {}. Next: mirrorctl context --help\n", path.display()))?;
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(["CURRENT", "NAME", "SERVER"]);
            for (name, context) in &config.contexts {
                let mark = if current == Some(name) { "*" } else { "" };
                table.row([mark.into(), name.into(), context.server.as_str().into()]);
            }
            app.print(&table.render(&app.view()))?;
        }
    }
    Ok(Exit::Done)
}

fn show(app: &App) -> Outcome<Exit> {
    let overrides = app.overrides();
    let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
    match app.global.output {
        Format::Json | Format::Yaml => {
            let mut object = as_json(&context);
            object["name"] = json!(name);
            app.answer_json(&object)?;
        }
        Format::Name => app.print(&format!("{name}\n"))?,
        Format::Table | Format::Wide => {
            let file = |path: &Option<std::path::PathBuf>| {
                path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string())
            };
            let mut lines = vec![
                ("server", context.server.clone()),
                ("ca", context.ca.display().to_string()),
                ("cert", file(&context.certificate)),
                ("key", file(&context.key)),
            ];
            lines.extend(context.token.as_ref().map(|_| ("token", "(hidden)".to_owned())));
            lines.push(("file", config::path(&overrides).display().to_string()));
            app.print(&format!("{name}\n{}", block(&app.view(), &lines)))?;
        }
    }
    Ok(Exit::Done)
}

fn as_json(context: &Context) -> serde_json::Value {
    json!({
        "server": context.server,
        "ca": context.ca,
        "certificate": context.certificate,
        "key": context.key,
        "has_token": context.token.is_some(),
    })
}
