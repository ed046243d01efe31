//! `mirrorctl man`, printed from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use crate::app::App;
use crate::cli::Cli;
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};

pub(super) fn man(app: &App, directory: Option<&Path>) -> Outcome<Exit> {
    let unwritten = |error: std::io::Error| {
        Fault::new(Exit::BadInput, format!("manual not written: {error}")).fault("this host's")
    };
    match directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(unwritten)?;
            app.print_bytes(&page)?;
        }
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(unwritten)?;
            clap_mangen::generate_to(Cli::command(), directory).map_err(unwritten)?;
            app.said(
                &format!("The manual's pages are in {}.", directory.display()),
                &format!("man -l {}/mirrorctl.1", directory.display()),
            )?;
        }
    }
    Ok(Exit::Done)
}
