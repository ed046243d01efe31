//! `mirrorctl cert`.

use std::io::Read as _;
use std::path::Path;

use mirror_certs::{CSR_BYTES_MAX, Existing, KeyPair, Peer, renewal_time, write_public};
use mirror_proto::v1;
use serde_json::json;

use crate::app::App;
use crate::cli::{CertCommand, Format};
use crate::client::{chain, own_certificate};
use crate::config::{self, Context, Edit};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::text::{block, time};
use crate::{clock, names, renewal, units};

const FAILED: &str = "no certificate issued";

pub(super) async fn run(app: &App, command: CertCommand) -> Outcome<Exit> {
    match command {
        CertCommand::Issue { user, request: Some(file) } => sign(app, user.as_deref(), &file).await,
        CertCommand::Issue { request: None, .. } => issue(app).await,
        CertCommand::Show => show(app),
    }
}

/// For a key that was made elsewhere: the certificate goes to standard output.
async fn sign(app: &App, user: Option<&str>, file: &Path) -> Outcome<Exit> {
    let mut certificate_request = String::new();
    let read = std::fs::File::open(file)
        .and_then(|open| open.take(CSR_BYTES_MAX as u64 + 1).read_to_string(&mut certificate_request));
    let mut faults = Faults::default();
    let name = user.map(|user| names::noted_user("USER", user, &mut faults)).unwrap_or_default();
    faults.check("--request", read.map_err(|error| format!("{}: {error}", file.display())));
    faults.finish(FAILED, "mirrorctl cert issue --help")?;
    let request = v1::IssueCertificateRequest { name, certificate_request };
    let issued = ask(app, request).await?;
    app.answer(&issued, "IssueCertificateResponse", &[names::last(&issued.name)], |_| {
        issued.certificate.clone()
    })?;
    Ok(Exit::Done)
}

/// For oneself: a new key, which stays here, and a certificate for it, both into the context.
async fn issue(app: &App) -> Outcome<Exit> {
    let overrides = app.overrides();
    if overrides.socket.is_some() {
        let text =
            format!("{FAILED}: over the socket you are no user, and there is no context to write it into");
        return Err(Fault::new(Exit::BadInput, text)
            .next("mirrorctl --socket FILE cert issue --user USER --request FILE"));
    }
    let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
    let failed =
        |error: String| Fault::new(Exit::BadInput, format!("{FAILED}: {error}")).fault("this host's");
    let key = KeyPair::generate().map_err(|error| failed(chain(&error)))?;
    let request = v1::IssueCertificateRequest {
        name: String::new(),
        certificate_request: key.csr_pem().map_err(|error| failed(chain(&error)))?,
    };
    let issued = ask(app, request).await?;
    let path = config::path(&overrides);
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Each pair has names of its own: a crash between two files never leaves a key with another's certificate.
    let stem = format!("{name}-{}", &key.spki_hash().to_string().trim_start_matches("sha256:")[..12]);
    let (certificate, private) = (format!("{stem}.pem"), format!("{stem}.key"));
    key.write_private(&folder.join(&private), Existing::Refuse).map_err(|error| failed(chain(&error)))?;
    write_public(&folder.join(&certificate), &issued.certificate, Existing::Refuse)
        .map_err(|error| failed(chain(&error)))?;
    renewal::keep_cas(&context.ca, &issued.ca_certificates).map_err(|error| failed(chain(&error)))?;
    config::edit(&overrides, &name, &Edit { identity: Some((certificate, private)), ..Edit::default() })?;
    let until = time(issued.expire_time).map(|until| units::moment_and_distance(until, clock::now()));
    let bare = names::last(&issued.name).to_owned();
    app.changed(
        &issued,
        "IssueCertificateResponse",
        &[&bare],
        &format!(
            "Context {name} has a certificate of {bare} until {}; it renews itself.",
            until.unwrap_or_default()
        ),
        "mirrorctl cert show",
    )?;
    Ok(Exit::Done)
}

async fn ask(app: &App, request: v1::IssueCertificateRequest) -> Outcome<v1::IssueCertificateResponse> {
    let issued = app.connect().await?.users().issue_certificate(request).await;
    Ok(issued.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner())
}

fn show(app: &App) -> Outcome<Exit> {
    let overrides = app.overrides();
    let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
    let Some(own) = own_certificate(&context) else {
        return Err(none(&name, &context));
    };
    let (identity, serial) = (own.identity.to_string(), own.serial.to_string());
    let user = names::last(&identity);
    let renewal = renewal_time(own.not_before, own.not_after);
    match app.global.output {
        Format::Json | Format::Yaml => app.answer_json(&json!({
            "user": user,
            "serial": serial,
            "not_before": units::rfc3339(own.not_before),
            "not_after": units::rfc3339(own.not_after),
            "renewal_time": units::rfc3339(renewal),
            "certificate": context.certificate,
            "key": context.key,
        }))?,
        Format::Name => app.print(&format!("{user}\n"))?,
        Format::Table | Format::Wide => {
            app.print(&format!("{user}\n{}", block(&app.view(), &lines(&context, &own, &serial))))?;
        }
    }
    Ok(Exit::Done)
}

fn lines(context: &Context, own: &Peer, serial: &str) -> Vec<(&'static str, String)> {
    let now = clock::now();
    let file = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    };
    let until = units::moment_and_distance(own.not_after, now);
    let renewal = renewal_time(own.not_before, own.not_after);
    vec![
        ("until", if own.not_after > now { until } else { format!("ended {until}") }),
        ("renews", if renewal > now { units::moment_and_distance(renewal, now) } else { "now".to_owned() }),
        ("serial", serial.to_owned()),
        ("cert", file(&context.certificate)),
        ("key", file(&context.key)),
    ]
}

fn none(name: &str, context: &Context) -> Fault {
    let text = match &context.certificate {
        Some(path) => format!("context {name}: {} cannot be read as a certificate of its CA", path.display()),
        None => format!("context {name} has no certificate"),
    };
    Fault::new(Exit::NotFound, text).next("mirrorctl cert issue")
}
