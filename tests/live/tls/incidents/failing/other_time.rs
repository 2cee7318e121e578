//! One program lives in another time than its host: what it refuses as expired is not.

use super::Scene;
use crate::{
    harness::{
        process::words,
        require::faketime,
        tls::{Identity, NAME},
    },
    needs,
};

impl Scene {
    /// curl asks for the service by name, again and again as one process; it lives that far ahead.
    #[track_caller]
    fn curl_in(&self, time: &str, options: &str) {
        let (port, ip) = (self.service.port(), self.service.ip());
        let mut curl = words(&format!(
            "curl -s -m 30 --retry 4 --retry-all-errors --retry-delay 1 -o /dev/null --resolve {NAME}:{port}:{ip} {options} https://{NAME}:{port}/"
        ));
        curl.arg("--cacert").arg(self.identity.cert());
        curl.env("LD_PRELOAD", faketime().expect("looked for before")).env("FAKETIME", time);
        self.pair.client.spawn(curl).wait();
    }
}

fn twenty_years_ahead(case: &'static str, option: &str) {
    let scene = Scene::set(case, Identity::make(), "");
    scene.curl_in("+20y", option);
    for role in ["client", "server"] {
        let opened = scene.opened(role);
        assert_eq!(opened.text("/details/failure"), "server_flight_refused", "{:#}", opened.json);
        assert_eq!(opened.text("/details/faked_time/setting"), "+20y", "{:#}", opened.json);
        assert_eq!(opened.blame(), ("clock", "likely"), "{:#}", opened.json);
        assert!(opened.why().contains("libfaketime is preloaded"), "{:#}", opened.json);
        assert!(opened.remedies().contains("take LD_PRELOAD and FAKETIME out"), "{}", opened.remedies());
    }
    scene.ends_with(2);
}

#[test]
fn a_client_that_lives_twenty_years_ahead_is_blamed_for_its_own_time() {
    needs!(Openssl, Curl, Faketime, Pace);
    twenty_years_ahead("tls_failing/other_time_tls12", "--tls-max 1.2");
}

#[test]
fn a_client_that_lives_twenty_years_ahead_is_blamed_for_its_own_time_in_tls_1_3() {
    needs!(Openssl, Curl, Faketime, Pace);
    twenty_years_ahead("tls_failing/other_time_tls13", "--tlsv1.3");
}

#[test]
fn an_expired_certificate_is_not_for_the_time_of_a_program_that_has_the_library_and_no_other_time() {
    needs!(Openssl, Curl, Faketime, Pace);
    let scene = Scene::set("tls_failing/expired_beside_faketime", Identity::expired(), "");
    scene.curl_in("+0", "");
    for role in ["client", "server"] {
        let opened = scene.opened(role);
        assert_eq!(opened.blame(), ("certificate", "certain"), "{:#}", opened.json);
        assert!(opened.json["details"]["faked_time"].is_null(), "{:#}", opened.json);
    }
    scene.ends_with(2);
}
