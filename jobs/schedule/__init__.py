"""Manifests for Kubernetes and systemd."""
