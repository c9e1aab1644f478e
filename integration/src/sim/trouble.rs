//! What happens to machines, whatever runs on them.

use std::time::Duration;

use schemadock_schema::InstanceName;

use super::faults::{boot, crash, docker, freeze, isolate, request, store, undo_later};
use super::fleet::Fleet;

/// Something happens to a machine, to its process, to its way to the store or to its servers; all of it passes.
pub async fn trouble(fleet: &Fleet) {
    let world = &fleet.world;
    let machines: Vec<_> = fleet.machines().cloned().collect();
    let on = machines[world.draw(0..machines.len() as u64) as usize].clone();
    let served = fleet.hosts().contains(&on);
    match world.draw(0..100) {
        0..35 => crash(fleet, &on),
        35..40 => world.end_life(&on, "a person kills it"),
        40..45 => fleet.stop_process(&on),
        45..60 => store(fleet, &on).await,
        60..70 => {
            world.freeze(&on, true);
            undo_later(fleet, move |fleet| fleet.world.freeze(&on, false));
        }
        70..76 => boot(fleet, &on),
        76..84 => isolate(fleet, &on),
        84..88 if served => docker(fleet, &on),
        _ => {
            let names: Vec<_> = fleet.targets().into_keys().collect();
            let Some(name) = names.get(world.draw(0..4) as usize) else { return };
            match world.draw(0..6) {
                0 => request(fleet, name).await,
                2 | 3 => slow(fleet, name),
                1 => freeze(fleet, name),
                _ => fleet.kill_server(name),
            }
        }
    }
}

/// A server that others overtake, for a while.
fn slow(fleet: &Fleet, name: &InstanceName) {
    let name = name.clone();
    let set = move |fleet: &Fleet, slow: bool| {
        fleet.world.change(|state| {
            state.note(format!("mysqld of {name} is slow: {slow}"));
            let servers = state.servers.values_mut();
            servers.filter(|server| server.instance == name).for_each(|server| server.slow = slow);
        });
    };
    set(fleet, true);
    undo_later(fleet, move |fleet| set(fleet, false));
}

/// A pause between two things that happen.
pub async fn pause(fleet: &Fleet) {
    let pause = match fleet.world.draw(0..3) {
        0 => fleet.world.draw(0..300),
        _ => fleet.world.draw(0..20_000),
    };
    fleet.rest(Duration::from_millis(pause)).await;
}
