# SPDX-License-Identifier: Apache-2.0
#
# The controller's image: one static program, the certificates of public authorities, no shell and no root.
#   docker build -t isthmus-hub:dev .
FROM golang:1.26 AS build
WORKDIR /src
# The modules are a layer of their own, fetched again only when their versions change.
COPY go.mod go.sum ./
RUN go mod download
COPY api ./api
COPY cmd/isthmus-hub ./cmd/isthmus-hub
COPY controllers ./controllers
COPY federation ./federation
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w" -o /isthmus-hub ./cmd/isthmus-hub

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /isthmus-hub /isthmus-hub
USER 65532:65532
ENTRYPOINT ["/isthmus-hub"]
