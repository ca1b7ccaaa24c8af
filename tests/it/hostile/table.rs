//! Every attack of the suite, where it is tried, what comes of it, which test tries it, and how that test knows that it
//! can fail: the same act with the protection off. `docs/SECURITY.md` shows exactly this table.

/// One attack.
struct Row {
    attack: &'static str,
    /// `jail` or `qemu`: the whole sandbox. `any`: the host's code that every sandbox speaks to.
    on: &'static str,
    outcome: &'static str,
    test: &'static str,
    control: &'static str,
}

const fn row(
    attack: &'static str,
    on: &'static str,
    outcome: &'static str,
    test: &'static str,
    control: &'static str,
) -> Row {
    Row { attack, on, outcome, test, control }
}

const CONFIG: &str =
    "hostile::git_config::configuration_that_a_guest_plants_runs_nothing_on_the_host_and_its_work_arrives";
const CLONE: &str = "sprung by the same git in a plain clone";
const BROKEN: &str = "hostile::git_objects::a_repository_that_a_guest_broke_or_forged_ends_in_work_or_in_a_word_and_never_touches_the_host";
const WHOLE: &str = "the cases of the same test that end with work";
const AFTER_HELLO: &str = "channel::tests::lies::an_answer_that_is_none_is_an_error_of_its_request_and_no_more";
const EXPORT: &str = "channel::tests::lies::an_export_that_is_more_or_other_than_it_may_be_is_refused_and_not_kept";
const MODELS: &str = "model::refusals::only_the_runs_own_token_and_only_plain_inference_get_through";
const OBEDIENT: &str = "the same program with the right words is woken";
const FIRST_LINE: &str = "hostile::machine::first_words::a_first_line_that_is_none_is_an_error_and_no_machine_is_left";
const FIRST_WORDS: &str = "qemu::wake::a_machine_may_say_one_short_line_that_it_is_ready_and_nothing_else";
const CHANNEL: &str = "hostile::machine::channel::lies_on_the_channel_of_a_machine_break_the_channel_and_nothing_else";
const SILENCE: &str =
    "hostile::machine::first_words::a_machine_that_says_nothing_is_given_up_at_its_deadline_cold_and_as_a_template";
const EMULATOR: &str = "hostile::machine::emulator::from_the_emulator_s_place_templates_images_disks_files_and_ports_of_the_host_are_out_of_reach";
const FLOODS: &str = "hostile::machine::floods::floods_of_console_memory_and_processes_stay_within_the_machine";
const SEARCH: &str = "hostile::machine::search::a_credential_of_the_host_is_nowhere_in_a_machine";
const DISKS: &str = "hostile::machine::disks::as_root_of_a_machine_the_image_cannot_be_written_and_the_work_disk_ends_where_its_limit_is";
const GARBAGE: &str =
    "hostile::machine::devices::queues_of_garbage_and_random_registers_and_ports_end_in_a_bounded_run";
const NETWORK: &str = "hostile::machine::devices::a_machine_has_a_disk_a_port_and_randomness_and_no_way_to_a_network";
const REACH: &str = "hostile::reach::a_guest_reaches_no_port_or_socket_of_the_host_and_its_own_gateway";
const SCAN: &str =
    "hostile::reach::of_all_ports_of_its_loopback_a_guest_finds_its_gateway_and_of_symphonys_sockets_none";
const SECRETS: &str =
    "hostile::reach::secrets_of_the_environment_the_operators_token_and_symphonys_directory_are_not_inside";
const REACHED: &str = "egress::reach::curl_and_git_reach_what_is_allowed_over_tls_and_nothing_else";
const ADDRESSES: &str =
    "egress::reach::a_name_that_leads_to_any_address_but_a_public_one_is_refused_although_it_is_allowed";
const OUTSIDE: &str = "the same commands outside find or reach it";

// One row a line, as in the document.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Git.
    row("`core.fsmonitor`", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("hooks in `.git/hooks`", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("`core.hooksPath` into the work tree", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("`gpg.program` and signatures", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("clean and smudge filters", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("`textconv` and `diff.external`", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("`core.sshCommand` and a credential helper", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("a submodule's `update` command", "jail", "nothing runs, the work arrives", CONFIG, CLONE),
    row("the same, with the agent's branch checked out on the host", "jail", "nothing runs", "hostile::git_config::nor_does_it_when_the_agents_branch_is_checked_out_on_the_host", CLONE),
    row("the same, against the hooks that 0.1.0 shipped", "jail", "nothing runs", "hostile::git_config::the_hooks_that_0_1_0_shipped_meet_the_done_file_and_the_claim_and_nothing_a_guest_planted", CLONE),
    row("`.git` that is gone, a link or a file that points at the host's", "jail", "parked, the host's is untouched", BROKEN, WHOLE),
    row("objects and alternates that point at the host's", "jail", "parked, or work of its own", BROKEN, WHOLE),
    row("an object of the host, named in a forged tree", "jail", "parked, the object does not arrive", "hostile::git_objects::a_guest_does_not_obtain_an_object_of_the_host_that_a_host_process_would_read_for_it", "outside a jail the same lines steal it"),
    row("a `.git` entry, links and options in `.gitmodules`, in a commit", "jail", "parked, git's check names it", BROKEN, WHOLE),
    row("locks, a corrupt pack, a garbage `HEAD`", "jail", "parked with the reason", BROKEN, WHOLE),
    row("a history that does not descend from the base", "jail", "parked with the reason", BROKEN, WHOLE),
    row("more than an export may hold", "jail", "parked with the reason", BROKEN, WHOLE),
    row("raw trees with `.git`, `..`, slashes, links", "any", "refused, no ref moves", "airlock::tests::hostile::trees_that_git_must_not_check_out_are_rejected", "a plain commit is taken: `broken_packs_…`"),
    row("a claim that is not what the bundle holds; other refs", "any", "refused, no ref moves", "airlock::tests::hostile::claims_and_refs_must_agree_exactly", "the honest claim is taken: `broken_packs_…`"),
    row("packs cut short, flipped, no bundle at all", "any", "refused", "airlock::tests::hostile::broken_packs_and_things_that_are_no_bundle_are_refused", "untouched it is taken"),
    row("objects left out, a prerequisite denied, a filter", "any", "refused", "airlock::tests::hostile::a_bundle_that_leaves_objects_out_is_refused", "the whole bundle is taken: `broken_packs_…`"),
    row("a small pack that unpacks to much", "any", "refused at the cap", "airlock::tests::hostile::size_is_capped_packed_and_unpacked", "within the caps it is taken: `broken_packs_…`"),
    // Paths.
    row("a link or a pipe in the place of a bundle", "any", "not read", "airlock::tests::hostile::a_link_or_a_pipe_in_place_of_the_bundle_is_not_read", "such a bundle itself is taken: `broken_packs_…`"),
    row("a link where the claim is written, in the repository", "jail", "not followed", "hostile::claim::a_link_in_the_guests_repository_does_not_lead_the_claim_astray", "a host program writes through that link"),
    row("a link where the claim is written, without a repository", "jail", "not followed", "hostile::claim::nor_does_one_in_a_work_tree_without_a_repository", "a host program writes through that link"),
    row("locked directories and links in a work disk", "jail", "removed, and nothing else", "jail::disks::a_disk_with_locked_directories_and_links_is_removed_and_nothing_else", "the links and locks were there; what they name still is"),
    row("a work disk nested beyond any path", "jail", "removed", "jail::disks::a_disk_nested_beyond_any_path_is_removed", "it has 3000 levels, more than a path can name"),
    row("a link in the place of a work disk", "jail", "not followed", "jail::disks::a_link_in_the_place_of_a_disk_is_not_followed", "a real disk is removed: `a_disk_with_…`"),
    row("a mount in a work disk", "jail", "not entered", "jail::disks::a_mount_in_a_disk_is_not_entered_and_the_rest_is_kept", "unmounted, the disk is removed"),
    row("pipes, links, directories in the guest program's state", "any", "neither block nor stay", "guest::state::pipes_links_and_directories_in_the_state_directory_neither_block_nor_stay", "a plain marker is read"),
    row("an index that is a pipe or a device", "any", "the export ends", "channel::tests::trees::an_index_that_is_a_pipe_or_a_device_holds_up_no_export", "the work is in the export"),
    row("a socket directory of somebody else, or open to others", "any", "not used", "operator::tests::a_directory_that_others_made_or_may_enter_is_not_used", "a private one of ours is used: `both_ends_agree_…`"),
    // The channel, before its hello and after.
    row("noise", "any", "the channel breaks", "channel::tests::hostile::noise_is_no_channel", "an honest guest: `another_version_…`"),
    row("silence", "any", "a timeout", "channel::tests::hostile::silence_is_a_timeout", "an honest guest: `another_version_…`"),
    row("a frame of 4 GiB", "any", "refused before it is stored", "channel::tests::hostile::a_huge_frame_is_refused_before_it_is_stored", "an honest guest: `another_version_…`"),
    row("a flood of streams", "any", "the channel breaks", "channel::tests::hostile::a_flood_of_streams_ends_the_channel", "two are served: `streams_that_a_guest_opens_…`"),
    row("a flood of frames that nobody reads", "any", "the channel breaks", "channel::tests::hostile::a_flood_of_empty_frames_that_nobody_reads_ends_the_channel", "read, they go on: `a_slow_reader_…`"),
    row("another version, another run's token", "any", "told apart, refused", "channel::tests::hostile::another_version_and_another_token_are_told_apart", "the right ones are taken: every other test"),
    row("requests before the hello, unknown ones", "any", "refused", "channel::tests::hostile::a_guest_refuses_requests_before_a_hello_and_requests_it_does_not_know", "after a hello they are answered: `bytes_echo_…`"),
    row("unknown, misplaced, oversize, half and deeply nested answers", "any", "an error of that request, no more", AFTER_HELLO, "the right answer is taken"),
    row("an export without end, or other than announced", "any", "refused at the cap", EXPORT, "the announced one is taken"),
    row("a check that says more than was asked for", "any", "refused at the cap", "channel::tests::lies::a_check_that_says_more_than_was_asked_for_is_cut_off", "one byte more room, and it is taken"),
    row("streams for no listener, headers of 4 GiB, interleaved halves", "any", "reset; halves do not mix", "channel::tests::lies::streams_that_a_guest_opens_for_no_listener_or_with_a_huge_header_are_reset_and_halves_do_not_mix", "its own listener's arrive"),
    row("a reader that never drains", "any", "others go on", "channel::tests::a_slow_reader_of_one_stream_does_not_hold_up_the_others", "drained, all of it arrives"),
    row("a program that never reads its input", "any", "can be killed", "channel::tests::a_program_that_never_reads_its_stdin_can_still_be_killed", "one that reads gets it: `bytes_echo_…`"),
    row("speaking for the guest program, tracing or stopping it", "jail", "refused", "hostile::forgery::the_guest_program_cannot_be_read_signalled_traced_or_spoken_for_by_the_agent", "a process of the agent's own can be"),
    // The agent's protocol and tools.
    row("a line without end, of 64 MB", "any", "the session ends", "agent::session::tests::faults::a_line_of_nine_megabytes_is_read_and_one_of_sixty_four_ends_the_session", "9 MB are read"),
    row("requests whose answers are never read", "any", "it fills its own pipe", "agent::session::tests::faults::an_agent_that_floods_us_with_requests_and_reads_no_answer_fills_its_own_pipe", "answered ones go on: `what_is_not_the_protocol_…`"),
    row("JSON that explodes when parsed", "any", "not parsed", "agent::session::tests::faults::a_line_that_would_explode_when_parsed_ends_the_session_unparsed", "9 MB in one string are read: `a_line_of_nine_…`"),
    row("foreign hosts, batches, oversize at the gateway", "any", "refused", "gateway::mcp::tests::foreign_hosts_batches_garbage_and_oversize_are_refused_with_rmcp_s_codes", "the plain call is answered: `exactly_our_four_…`"),
    row("a request that never completes", "any", "ended", "gateway::mcp::tests::a_request_that_never_completes_is_ended", "a whole one is answered: `exactly_our_four_…`"),
    row("connections without end at the gateway", "any", "capped", "gateway::mcp::tests::a_guest_can_hold_only_so_many_connections", "up to the cap they are served"),
    // Reach.
    row("a port of the host's loopback and of its address", "jail", "closed", REACH, OUTSIDE),
    row("the operator's API", "jail", "closed", REACH, OUTSIDE),
    row("a unix and an abstract socket of the host", "jail", "closed", REACH, OUTSIDE),
    row("every port from 1 to 65535", "jail", "only its own gateway", SCAN, OUTSIDE),
    row("the operator's unix socket", "jail", "not there", SCAN, OUTSIDE),
    row("another run's gateway, path and token", "jail", "refused", "hostile::reach::of_two_guests_at_once_each_can_use_only_its_own_endpoint_and_token", "its own are taken"),
    row("a credential in environments and files of the host", "jail", "not inside", SECRETS, OUTSIDE),
    row("a key of the host's for models, and a login", "jail", "not inside, not in a log", "model::credentials::a_planted_key_is_nowhere_in_the_guest_nor_in_anything_that_is_written", "the same search finds the run's own token"),
    row("a key and a login in all memory of the sandbox, while the broker uses them", "jail", "not there", "model::memory::while_the_broker_uses_a_key_and_a_login_neither_is_in_any_memory_of_the_jail", "staged, the same searches find them: `what_is_staged_…`"),
    row("a provider asked with a wrong or another door's token", "jail", "401, nothing is sent", MODELS, "with its own it is answered: `an_answer_streams_…`"),
    row("tools the provider runs, addresses, stored things, two readings of one body", "jail", "400, nothing is sent", MODELS, "allowed by the workflow it passes: `what_the_workflow_allows_…`"),
    row("the same two at Google's API, with the token in its own places", "jail", "refused, nothing is sent", "model::google::only_the_runs_own_token_and_only_plain_inference_reach_google", "with its own it is answered, in each of them"),
    row("a host that nobody allowed, another port, http in clear", "jail", "refused in words, a person is asked", REACHED, "the allowed host is read by the same commands"),
    row("another name in the TLS hello than in the request", "jail", "cut, the server gets no byte", REACHED, "the same name passes"),
    row("a way around the proxy", "jail", "there is none", REACHED, "through it the same page is read"),
    row("allowed names that lead to loopback, private, link-local, metadata, shared, multicast, reserved, mapped, tunnelled addresses, or to one among good ones", "jail", "refused, nobody is called", ADDRESSES, "this side reaches those addresses itself"),
    row("an allowed name that leads to the host's own public address", "jail", "refused", ADDRESSES, "a listener was there"),
    row("addresses in every spelling in place of a name", "jail", "refused", ADDRESSES, "names pass"),
    row("a name bound to another address between the check and the connection", "jail", "only what was checked is called", "egress::reach::a_name_that_is_bound_again_between_the_check_and_the_connection_leads_nowhere_else", "the same name passes while it leads there"),
    row("a flood of made-up hosts", "any", "16 cards, a row for all others", "gateway::egress::tests::a_flood_of_made_up_hosts_fills_neither_inbox_nor_journal", "each of the 16 is a card"),
    row("an encrypted, doubled, missing or malformed name in the hello", "any", "refused", "egress::tests::hellos::whatever_is_not_one_hello_with_one_name_is_refused", "the honest hello passes"),
    row("a decision for another issue, or one that was used up", "jail", "refused", "egress::decisions::cards_and_decisions_survive_a_kill_and_each_reaches_as_far_as_it_says", "this issue passes"),
    row("the operator's token and `.symphony/`", "jail", "not inside", SECRETS, OUTSIDE),
    row("host files, other disks, `/etc/shadow`", "jail", "not readable", "jail::files::host_secrets_are_not_readable_inside", OUTSIDE),
    row("writing outside the work tree", "jail", "refused", "jail::files::only_the_work_tree_home_and_scratch_are_writable", "the work tree takes it"),
    row("device nodes and setuid files", "jail", "gain nothing", "jail::files::device_nodes_and_setuid_files_gain_nothing", "outside a setuid shell is its owner"),
    row("namespaces, mounts, traces, keys, rings", "jail", "refused", "jail::kernel::namespace_mount_trace_key_and_ring_calls_are_refused", "outside the kernel answers otherwise"),
    row("descriptors that the host leaked", "jail", "closed", "jail::kernel::nothing_the_host_has_open_is_open_inside", "a plain child has them"),
    // Floods and ends.
    row("a fork bomb", "jail", "stopped, the jail ends", "jail::limits::a_fork_bomb_is_stopped_and_the_jail_still_ends", "with room all start: `processes_beyond_…`"),
    row("a memory hog", "jail", "killed", "jail::limits::a_memory_hog_is_stopped", "with more room it ends well"),
    row("a file without end", "jail", "cut at its limit", "jail::limits::a_file_cannot_outgrow_its_limit", "with more room it is whole"),
    row("a flood on the error stream", "jail", "capped at 64 KiB", "jail::limits::a_flood_on_the_error_stream_is_drained_and_capped", "all 3 MB were written"),
    row("raised limits of the guest program", "jail", "refused", "jail::works::the_limits_of_another_process_cannot_be_changed", "outside they change"),
    row("orphans that left their group", "jail", "die with the jail", "jail::death::an_orphan_dies_with_its_jail", "the orphan was alive"),
    row("ignoring the order to end", "jail", "killed", "jail::death::a_guest_that_will_not_end_is_killed", "one that listens is not: `an_orphan_dies_…`"),
    // A machine, before it is woken.
    row("a first line without end", "qemu", "no machine, nothing is left", FIRST_LINE, OBEDIENT),
    row("a first line of garbage", "qemu", "no machine, nothing is left", FIRST_LINE, OBEDIENT),
    row("a first line of another version", "qemu", "no machine, nothing is left", FIRST_LINE, OBEDIENT),
    row("ready, and gone", "qemu", "no machine, nothing is left", FIRST_LINE, OBEDIENT),
    row("nine more lies in the first line", "qemu", "refused", FIRST_WORDS, "the right line is taken"),
    row("no first line", "qemu", "given up at the deadline", SILENCE, OBEDIENT),
    row("ready, and then silence, cold and as a template", "qemu", "given up at the deadline, no template is kept", SILENCE, OBEDIENT),
    row("escape sequences in its words and on its console", "qemu", "shown without", "hostile::machine::first_words::what_a_machine_says_for_an_error_cannot_speak_to_a_terminal", "its other words are shown"),
    row("restarting or halting at once", "qemu", "ended, once", "hostile::machine::ends::a_machine_that_restarts_or_halts_at_once_has_ended_and_does_not_come_back", "its words are on the console, once"),
    // A machine that is awake, as its root.
    row("noise on the channel", "qemu", "the channel breaks", CHANNEL, OBEDIENT),
    row("a frame of 4 GiB", "qemu", "the channel breaks", CHANNEL, OBEDIENT),
    row("a flood of streams", "qemu", "the channel breaks", CHANNEL, OBEDIENT),
    row("a flood that nobody reads", "qemu", "waits in the machine", "hostile::machine::floods::a_flood_on_a_channel_that_nobody_reads_waits_in_the_machine", "read, it goes on"),
    row("a machine that reads nothing", "qemu", "only the writer waits", "hostile::machine::floods::a_machine_that_does_not_read_holds_up_only_whoever_writes_to_it", "some bytes are taken"),
    row("a flood on the console", "qemu", "capped at 64 KiB", FLOODS, "all 600 KiB were written"),
    row("a memory hog", "qemu", "its own kernel kills it", FLOODS, "the emulator's memory grew with it"),
    row("a fork bomb", "qemu", "the host has no thread more", FLOODS, "over 500 processes ran in the machine"),
    row("ignoring the channel's end", "qemu", "killed", "hostile::machine::ends::a_machine_that_ignores_its_channel_s_end_is_killed_and_one_that_heeds_it_is_not", "one that heeds it is not killed"),
    row("writing to the image, with and without the kernel's leave", "qemu", "refused, the file is as it was", DISKS, "the work disk takes the same write"),
    row("writing to the image by a request of its own making", "qemu", "refused by the device", "hostile::machine::devices::a_request_that_no_driver_makes_writes_to_no_image", "the work disk does the same request"),
    row("writing beyond the work disk's limit", "qemu", "an error, the file does not grow", DISKS, "up to the limit it is written"),
    row("queues of garbage", "qemu", "the run ends, the image is as it was", GARBAGE, "the emulator complains of them"),
    row("random registers and ports", "qemu", "the run ends, the image is as it was", GARBAGE, "they are reached: a known one answers"),
    row("network devices, PCI, vsock", "qemu", "there are none", NETWORK, "the devices that are there are listed"),
    row("the host's loopback, by every address", "qemu", "no way", NETWORK, OUTSIDE),
    row("a host credential in all of the machine's memory", "qemu", "not there", SEARCH, "planted in memory it is found"),
    row("a key and a login in all memory of the emulator, while the broker uses them", "qemu", "not there", "machine::secrets::while_the_broker_uses_a_key_and_a_login_neither_is_in_the_memory_of_the_machine_and_a_staged_key_is", "staged, the same search finds it"),
    row("a host credential on its disks", "qemu", "not there", SEARCH, "planted on the disk it is found"),
    row("a host credential in environments and firmware", "qemu", "not there", SEARCH, "the same search finds it in memory"),
    row("more processes, memory and disk than a run may use", "qemu", "refused", "machine::limits::a_machine_s_disk_processes_and_memory_have_their_limits", "less of each is given"),
    row("an issue's secret in the template of the next", "qemu", "not there", "machine::templates::a_template_knows_no_issue_and_a_restored_machine_has_its_own_limits", "the same search finds it in a file"),
    // An emulator that a guest has taken over.
    row("writing to the template's memory", "qemu", "refused", EMULATOR, "it can be read; unsealed it can be written: `template::tests::the_memory_…`"),
    row("writing to the image from the emulator", "qemu", "refused", EMULATOR, "it can be read; its own disk can be written"),
    row("other issues' disks and host files", "qemu", "not there", EMULATOR, OUTSIDE),
    row("host ports and processes from the emulator", "qemu", "not there", EMULATOR, OUTSIDE),
    row("setuid programs and capabilities", "qemu", "gain nothing", EMULATOR, "outside a setuid shell is its owner: `device_nodes_…`"),
    row("new processes, other users, calls an emulator has no use for", "qemu", "three filters, no capability, no new privileges", "hostile::machine::emulator::a_running_emulator_has_no_right_its_jail_s_filters_and_its_own", "a plain child has three filters less"),
    row("a link, a pipe, garbage in the place of its work disk", "qemu", "its own run fails, no other loses its template", "hostile::machine::emulator::what_a_guest_did_to_its_own_disk_is_an_error_of_its_own_and_costs_no_other_its_template", "with a new disk it boots"),
    row("lies on the monitor", "qemu", "an error, and a cold boot", "qemu::monitor::an_emulator_that_lies_on_its_monitor_is_an_error_and_cannot_speak_to_a_terminal", "the right answers restore"),
    row("a monitor, a network device, a fork, on the command line", "qemu", "there are none", "qemu::argv::a_machine_has_no_network_no_shared_folder_and_forks_nothing", "the same line has what a machine does have"),
    row("a template that was tampered with", "qemu", "made again", "qemu::template::a_template_that_was_tampered_with_is_made_again_and_a_rejected_one_is_not", "an untouched one is loaded"),
];

const HEAD: &str = "| attack | on | what happens | test | control |";

#[test]
fn the_document_shows_every_attack_of_the_table_and_no_other() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md");
    let text = std::fs::read_to_string(path).expect("readable");
    let shown = text.lines().skip_while(|line| *line != HEAD).skip(2).take_while(|line| line.starts_with('|'));
    let shown: Vec<&str> = shown.collect();
    let told: Vec<String> = ROWS
        .iter()
        .map(|Row { attack, on, outcome, test, control }| {
            format!("| {attack} | {on} | {outcome} | `{test}` | {control} |")
        })
        .collect();
    assert!(shown == told, "docs/SECURITY.md must show:\n{HEAD}\n| --- | --- | --- | --- | --- |\n{}", told.join("\n"));
}

/// That the tests exist is for `tests/tidy.rs` to check, as for every document.
#[test]
fn the_table_has_enough_attacks_on_every_runtime_and_a_control_for_each() {
    let on = |name: &str| ROWS.iter().filter(|row| row.on == name).count();
    assert!(ROWS.len() >= 40 && on("jail") >= 20 && on("qemu") >= 20, "{}", ROWS.len());
    assert_eq!(on("jail") + on("qemu") + on("any"), ROWS.len());
    for (at, row) in ROWS.iter().enumerate() {
        assert!(!row.control.is_empty() && row.control != "none", "{}", row.attack);
        let twice = ROWS.iter().skip(at + 1).any(|other| other.attack == row.attack && other.on == row.on);
        assert!(!twice, "{} stands twice", row.attack);
    }
}
