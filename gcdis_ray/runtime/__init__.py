"""Where stages run: in this process (``local``) or on Ray (``ray_*``)."""
