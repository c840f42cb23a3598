# Ferry beside CANN, for machines with Ascend 910B or 910C cards. NOT BUILT HERE: no machine of ours has
# such a card or can fetch the base image; docs/ascend.md says what to look at.
#
#   docker build -f docker/ascend.Dockerfile -t ferry-ascend .
#   docker run --rm -it --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm \
#     --device /dev/hisi_hdc -v /usr/local/dcmi:/usr/local/dcmi \
#     -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi \
#     -v /usr/local/Ascend/driver:/usr/local/Ascend/driver -v "$PWD":/models ferry-ascend
#
# The CANN image (910B; for 910C take the tag with a3 in place of 910b) gives the libraries. Ferry is built and
# run on Debian 12, where it is tested: its C library is newer than the image's own.
ARG CANN=quay.io/ascend/cann:9.0.0-910b-ubuntu22.04-py3.11
FROM ${CANN} AS cann

FROM debian:12 AS build
WORKDIR /ferry
COPY . .
RUN ./run build

FROM debian:12
COPY --from=cann /usr/local/Ascend /usr/local/Ascend
COPY --from=build /ferry/build/ferry /usr/local/bin/ferry
RUN apt-get update -q && apt-get install -y -q --no-install-recommends \
      libfmt9 libpcre2-8-0 libsodium23 libzstd1 zlib1g liblzma5 libcurl4 libstdc++6 && \
    rm -rf /var/lib/apt/lists/*
# What set_env.sh of the toolkit sets, as far as a program without Python needs it.
ENV ASCEND_HOME_PATH=/usr/local/Ascend/ascend-toolkit/latest \
    ASCEND_TOOLKIT_HOME=/usr/local/Ascend/ascend-toolkit/latest \
    ASCEND_OPP_PATH=/usr/local/Ascend/ascend-toolkit/latest/opp \
    LD_LIBRARY_PATH=/usr/local/Ascend/driver/lib64/driver:/usr/local/Ascend/driver/lib64/common:/usr/local/Ascend/driver/lib64:/usr/local/Ascend/ascend-toolkit/latest/lib64
WORKDIR /models
CMD ["ferry", "doctor", "--device", "ascend:0"]
