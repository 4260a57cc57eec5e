#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidecod_fuzz::wire::tensor(data));
