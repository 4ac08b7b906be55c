"""Pure X.509: keys, names, requests, plans, certificates, CRLs, OCSP, chains, formats, COSE."""
