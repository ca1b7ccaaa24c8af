//! A real file that is saved in every way an editor has.

use std::fs;

use tempfile::TempDir;

use super::*;

fn environment() -> Environment {
    Environment { home: None, variable: Arc::new(|_| None) }
}

fn text(interval: u32) -> String {
    format!(
        "---\ntracker: {{kind: local}}\nacp: {{adapter: script}}\npolling: {{interval_ms: {interval}}}\n---\nwork\n"
    )
}

fn loaded() -> (TempDir, PathBuf, WorkflowFile) {
    let dir = TempDir::new().expect("directory");
    let path = dir.path().join("WORKFLOW.md");
    fs::write(&path, text(700)).expect("write");
    let file = WorkflowFile::load(&path, environment()).expect("valid");
    (dir, path, file)
}

fn interval(file: &WorkflowFile) -> u64 {
    file.workflow().polling.interval_ms
}

#[test]
fn each_of_several_quick_writes_is_seen() {
    let (_dir, path, mut file) = loaded();
    assert_eq!(file.reload(), Reload::Unchanged);
    let stamp = fs::metadata(&path).and_then(|meta| meta.modified()).expect("stamp");
    for value in [701, 702, 703, 701] {
        fs::write(&path, text(value)).expect("write");
        // A clock too coarse to tell these writes apart.
        fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(stamp)).expect("stamp");
        assert!(matches!(file.reload(), Reload::Changed(_)), "{value}");
        assert_eq!(interval(&file), u64::from(value));
        assert_eq!(file.reload(), Reload::Unchanged);
    }
}

#[test]
fn a_rename_over_is_a_change() {
    let (dir, path, mut file) = loaded();
    let next = dir.path().join(".WORKFLOW.md.swp");
    fs::write(&next, text(5)).expect("write");
    fs::rename(&next, &path).expect("rename");
    assert!(matches!(file.reload(), Reload::Changed(_)));
    assert_eq!(interval(&file), 5);
}

#[test]
fn a_deleted_file_keeps_the_last_good_version_and_heals_when_it_returns() {
    let (_dir, path, mut file) = loaded();
    fs::remove_file(&path).expect("remove");
    let Reload::Broken(problems) = file.reload() else { panic!("not broken") };
    assert_eq!(problems[0].code, Code::MissingWorkflowFile);
    assert_eq!(file.reload(), Reload::Unchanged, "reported once");
    assert!(!file.may_dispatch() && !file.broken().is_empty());
    assert_eq!(interval(&file), 700);

    fs::write(&path, text(700)).expect("write");
    assert_eq!(file.reload(), Reload::Healed);
    assert!(file.may_dispatch() && file.broken().is_empty());

    fs::remove_file(&path).expect("remove");
    assert!(matches!(file.reload(), Reload::Broken(_)));
    fs::write(&path, text(8)).expect("write");
    assert!(matches!(file.reload(), Reload::Changed(_)));
    assert_eq!((interval(&file), file.may_dispatch()), (8, true));
}

#[test]
fn a_broken_file_is_reported_until_it_changes_and_never_taken() {
    let (_dir, path, mut file) = loaded();
    fs::write(&path, text(0)).expect("write");
    let Reload::Broken(problems) = file.reload() else { panic!("not broken") };
    assert_eq!(problems[0].line, 4);
    assert_eq!(file.reload(), Reload::Unchanged);
    assert_eq!((interval(&file), file.may_dispatch()), (700, false));

    fs::write(&path, b"---\n\xff\n---\n").expect("write");
    let Reload::Broken(problems) = file.reload() else { panic!("not broken") };
    assert_eq!(problems[0].line, 2, "another reason is another report");
    fs::write(&path, "---\ntracker: {kind: local}\n").expect("write");
    assert!(matches!(file.reload(), Reload::Broken(_)));

    fs::write(&path, text(9)).expect("write");
    assert!(matches!(file.reload(), Reload::Changed(_)));
    assert!(file.may_dispatch());
}

#[test]
fn a_changed_listener_needs_a_restart() {
    let (_dir, path, mut file) = loaded();
    fs::write(&path, text(700).replace("polling", "server: {port: 1, host: 0.0.0.0}\npolling")).expect("write");
    let Reload::Changed(change) = file.reload() else { panic!("not changed") };
    assert_eq!(change.restart_needed, ["server.port", "server.host"]);
}

#[test]
fn a_start_fails_with_the_exit_codes_of_the_contract() {
    let dir = TempDir::new().expect("directory");
    let path = dir.path().join("WORKFLOW.md");
    let code = |path: &Path| WorkflowFile::load(path, environment()).err().map(|error| error.exit_code());
    assert_eq!(code(&path), Some(2));
    assert_eq!(code(dir.path()), Some(2));
    for (content, want) in [
        ("---\ntracker: {kind: linear}\n---\n", 2),
        ("prompt", 2),
        ("---\ntracker: {kind: local}\nserver: {auth: none, host: 0.0.0.0}\n---\n", 2),
        ("---\ntracker: {kind: local}\nagent: {max_turns: 0}\n---\n", 1),
        ("---\n", 1),
    ] {
        fs::write(&path, content).expect("write");
        assert_eq!(code(&path), Some(want), "{content}");
    }
}
