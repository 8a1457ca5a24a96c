"""What may tell who a patient is: found, scrubbed from reports, and searched for."""
