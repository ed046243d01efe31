//! Which of a project's upstreams a person means. Decides nothing: whether it may be pulled from now is the engine's to
//! say.

use ::fleet::{Engine, id::ProjectUid, project::Upstream, refusal::Violation};
use mirror_proto::convert;

/// Reads a place counted from 1, a URI or a host; the answer is the canonical URI of a declared upstream.
pub(super) fn meant(view: &Engine, project: ProjectUid, text: &str) -> Result<String, Violation> {
    let declared = view.project(project).map_or(&[][..], |project| &project.record.spec.upstreams);
    pick(declared, text).map(|upstream| upstream.uri.clone())
}

fn pick<'a>(declared: &'a [Upstream], text: &str) -> Result<&'a Upstream, Violation> {
    let wrong = |why: &str| {
        let list: Vec<String> =
            declared.iter().enumerate().map(|(index, one)| format!("{}: {}", index + 1, one.uri)).collect();
        let list = if list.is_empty() { "it has none".to_owned() } else { list.join(", ") };
        Violation::new("upstream", format!("{why} the project's upstreams: {list}"))
    };
    if let Ok(place) = text.parse::<usize>() {
        return place
            .checked_sub(1)
            .and_then(|index| declared.get(index))
            .ok_or_else(|| wrong("is no place among"));
    }
    let uri = if text.contains("://") { Some(convert::parse_upstream_uri("upstream", text)?) } else { None };
    let fits = |one: &&Upstream| match &uri {
        Some(uri) => one.uri == *uri,
        None => one.host.eq_ignore_ascii_case(text),
    };
    let mut fitting = declared.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(wrong("is the host of several; name one by its place or URI, of")),
        (None, _) => Err(wrong("is none of")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(uri: &str, host: &str) -> Upstream {
        let (uri, host) = (uri.to_owned(), host.to_owned());
        Upstream { uri, host, user: String::new(), sealed_password: Vec::new() }
    }

    #[test]
    fn an_upstream_is_named_by_place_uri_or_host() {
        let declared = [
            upstream("rsync://a.example/debian/", "a.example"),
            upstream("rsync://b.example/debian/", "b.example"),
            upstream("rsync://b.example/other/", "b.example"),
        ];
        for (text, index) in [
            ("1", 0),
            ("3", 2),
            ("A.example", 0),
            ("rsync://B.example/debian", 1),
            ("rsync://me@b.example/other/", 2),
        ] {
            assert_eq!(pick(&declared, text).unwrap(), &declared[index], "{text}");
        }
        for (text, why) in [
            ("0", "no place among"),
            ("4", "no place among"),
            ("c.example", "is none of"),
            ("", "is none of"),
            ("b.example", "several"),
            ("rsync://a.example/else/", "is none of"),
        ] {
            let fault = pick(&declared, text).unwrap_err();
            assert!(
                fault.description.contains(why) && fault.description.contains("2: rsync://b.example/debian/")
            );
        }
        assert!(pick(&declared, "rsync://u:secret@a.example/").unwrap_err().description.contains("password"));
        assert!(pick(&[], "1").unwrap_err().description.ends_with("it has none"));
    }
}
