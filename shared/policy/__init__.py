"""Pure rules: profiles, grants, bundles and the one decision function."""
