//! Names, places, hosts, times and words of every kind that mean harm, in every field of a declaration that takes a
//! text: refused by field, value and rule, all at once, and nothing is changed.

use mirror_proto::{status::Fault, v1};
use tonic::Code;

use super::{fleet, generate::TEXTS, good, records};

/// A field by the name that its fault has, and how a value gets into it.
type Field = (&'static str, fn(&mut v1::Project, &str));

fn schedule(project: &mut v1::Project) -> &mut v1::Schedule {
    project.schedule.get_or_insert_default()
}

fn with_cron(project: &mut v1::Project, change: impl FnOnce(&mut v1::Cron)) {
    let mut cron = match schedule(project).cadence.take() {
        Some(v1::schedule::Cadence::Cron(cron)) => cron,
        _ => v1::Cron::default(),
    };
    change(&mut cron);
    schedule(project).cadence = Some(v1::schedule::Cadence::Cron(cron));
}

fn origin(project: &mut v1::Project) -> &mut v1::PlacementTarget {
    &mut project.placement.as_mut().unwrap().origins[0]
}

/// Fields in which none of [`TEXTS`] is right.
const FIELDS: [Field; 19] = [
    ("name", |project, text| project.name = format!("projects/{text}")),
    ("destination", |project, text| project.destination = format!("a1:{text}")),
    ("upstreams[0].uri", |project, text| {
        project.upstreams[0].uri = format!("rsync://{}/mod/", text.replace('/', "!"))
    }),
    ("upstreams[0].user", |project, text| project.upstreams[0].user = text.to_owned()),
    ("placement.origins[0].agent", |project, text| origin(project).agent = format!("agents/{text}")),
    ("placement.origins[0].destination", |project, text| origin(project).destination = format!("a1:{text}")),
    ("publish.link", |project, text| {
        project.publish = Some(v1::PublishSettings { link: format!("a1:{text}") });
    }),
    ("schedule.cron.year", |project, text| with_cron(project, |cron| cron.year = text.to_owned())),
    ("schedule.cron.month", |project, text| with_cron(project, |cron| cron.month = text.to_owned())),
    ("schedule.cron.day", |project, text| with_cron(project, |cron| cron.day = text.to_owned())),
    ("schedule.cron.week", |project, text| with_cron(project, |cron| cron.week = text.to_owned())),
    ("schedule.cron.day_of_week", |project, text| {
        with_cron(project, |cron| cron.day_of_week = text.to_owned())
    }),
    ("schedule.cron.hour", |project, text| with_cron(project, |cron| cron.hour = text.to_owned())),
    ("schedule.cron.minute", |project, text| with_cron(project, |cron| cron.minute = text.to_owned())),
    ("schedule.cron.second", |project, text| with_cron(project, |cron| cron.second = text.to_owned())),
    ("schedule.time_zone", |project, text| schedule(project).time_zone = text.to_owned()),
    ("schedule.start_time", |project, text| schedule(project).start_time = text.to_owned()),
    ("schedule.end_time", |project, text| schedule(project).end_time = text.to_owned()),
    ("schedule.windows[0]", |project, text| {
        let window = v1::Window { start: text.to_owned(), end: "06:00".to_owned(), ..v1::Window::default() };
        schedule(project).windows = vec![window];
    }),
];

/// Values that are wrong in one kind of field only.
const SINGLE: [Field; 18] = [
    ("name", |project, _| project.name = "projects/..".to_owned()),
    ("destination", |project, _| project.destination = "a1:..".to_owned()),
    ("destination", |project, _| project.destination = "/srv/debian".to_owned()),
    ("destination", |project, _| project.destination = "a1:.mirror/locks".to_owned()),
    ("destination", |project, _| project.destination = "a1:x/../y".to_owned()),
    ("destination", |project, _| project.destination = format!("a1:{}", "x/".repeat(3_000))),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "rsync://h:abc/m/".to_owned()),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "rsync://h:65536/m/".to_owned()),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "rsync://h/%00/".to_owned()),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "rsync://h/m/*/".to_owned()),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "file:///etc/".to_owned()),
    ("upstreams[0].uri", |project, _| project.upstreams[0].uri = "host::module".to_owned()),
    ("display_name", |project, _| project.display_name = "a\u{1b}[2J".to_owned()),
    ("labels", |project, _| project.labels = [("a b".to_owned(), "x".to_owned())].into()),
    ("labels.tier", |project, _| project.labels = [("tier".to_owned(), "\n".to_owned())].into()),
    ("guard.sentinels[0]", |project, _| {
        let sentinels = vec!["../x".to_owned()];
        project.guard = Some(v1::GuardSettings { sentinels, ..v1::GuardSettings::default() });
    }),
    ("marker.path", |project, _| {
        let path = "../../etc/passwd".to_owned();
        project.marker = Some(v1::Marker { path, kind: 1 });
    }),
    ("rsync.options[0]", |project, _| {
        let options = vec!["--filter=merge /etc/shadow".to_owned()];
        project.rsync = Some(v1::RsyncSettings { options, ..v1::RsyncSettings::default() });
    }),
];

/// The faults that a declaration is refused with; every one of them fit for a terminal and short.
async fn faults(
    projects: &mut super::ProjectServiceClient<super::Channel>,
    project: v1::Project,
) -> Result<Vec<String>, v1::Project> {
    let request = v1::CreateProjectRequest { project: Some(project), ..v1::CreateProjectRequest::default() };
    let status = match projects.create_project(request).await {
        Ok(made) => return Err(made.into_inner()),
        Err(status) => status,
    };
    let fault = Fault::from(&status);
    assert_eq!(fault.code, Code::InvalidArgument, "{status:?}");
    for violation in &fault.violations {
        for text in [&violation.field, &violation.description] {
            assert_eq!(&rsync::text::printable(text.as_bytes(), 1_000), text, "not fit for a terminal");
        }
        assert!(
            violation.field.is_empty() || violation.description.contains('"'),
            "shows no value: {violation:?}"
        );
    }
    Ok(fault.violations.into_iter().map(|violation| violation.field).collect())
}

#[tokio::test]
async fn hostile_values_are_refused_by_field_and_change_nothing() {
    let (fleet, mut projects) = fleet().await;
    let before = records(&fleet);
    let long = "x".repeat(10_000);
    let texts = TEXTS.iter().copied().chain([long.as_str(), "é", "a b"]);
    for text in texts {
        for (field, put) in FIELDS {
            let mut project = good("debian", "ftp1");
            put(&mut project, text);
            let found = faults(&mut projects, project).await;
            let found = found.unwrap_or_else(|made| panic!("{field} takes {text:?}: {made:?}"));
            assert!(found.iter().any(|one| one == field), "{field} with {text:?}: {found:?}");
        }
    }
    for (index, (field, put)) in SINGLE.iter().enumerate() {
        let mut project = good("debian", "ftp1");
        put(&mut project, "");
        let found = faults(&mut projects, project).await;
        let found = found.unwrap_or_else(|made| panic!("{field} (case {index}) is taken: {made:?}"));
        assert!(found.iter().any(|one| one == field), "{field} (case {index}): {found:?}");
    }
    assert_eq!(records(&fleet), before);
    fleet.end().await;
}

#[tokio::test]
async fn all_hostile_fields_are_told_at_once() {
    let (fleet, mut projects) = fleet().await;
    let mut project = good("debian", "ftp1");
    FIELDS.iter().for_each(|(_, put)| put(&mut project, "-\u{1b}"));
    let found = faults(&mut projects, project).await.expect("it is refused");
    for (field, _) in FIELDS {
        assert!(found.iter().any(|one| one == field), "{field} is missing: {found:?}");
    }
    fleet.end().await;
}
