//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<PathBuf> = {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir("muster/v1")?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        found.retain(|path| path.extension().is_some_and(|ending| ending == "proto"));
        found.sort();
        found
    };
    println!("cargo:rerun-if-changed=muster/v1");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(false).open_files(&files)?;
    // The encoded set keeps the method options; the decoded one that prost builds from does not.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set = prost_types_set(&compiler.encode_file_descriptor_set())?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Sorted maps: the same request has the same bytes, which idempotency keys compare.
        .btree_map(".")
        .bytes(".muster.v1.RegisterBuildRequest.data")
        .bytes(".muster.v1.FetchChunk.data")
        .bytes(".muster.v1.LogChunk.data")
        .bytes(".muster.v1.ImportSeedRequest.data")
        .bytes(".muster.v1.TunnelFrame.data")
        .bytes(".muster.v1.Chunk.data")
        .bytes(".muster.v1.TunnelFrame.errors")
        .bytes(".muster.v1.SyncContent.data")
        .compile_fds_with_config(set, config)?;
    Ok(())
}

fn prost_types_set(encoded: &[u8]) -> Result<prost_types::FileDescriptorSet, prost::DecodeError> {
    prost_types::FileDescriptorSet::decode(encoded)
}
