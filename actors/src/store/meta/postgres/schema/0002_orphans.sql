-- Condemns objects that nothing is known of, given by arrays of the same length in the order of their digests; a row for
-- each object that may be deleted now. Under the digest's lock, so that no upload is given the name meanwhile.
-- A later step defines this one anew: what is here holds in between only.
CREATE FUNCTION s3dedup.condemn_unknown(
    p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_generations BIGINT[], p_key_depths INTEGER[]
) RETURNS TABLE (o_digest BYTEA, o_generation BIGINT, o_key_depth INTEGER)
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOR i IN 1 .. coalesce(array_length(p_digests, 1), 0) LOOP
        o_digest := p_digests[i];
        o_generation := p_generations[i];
        o_key_depth := p_key_depths[i];
        PERFORM s3dedup.lock_digest(o_digest);
        -- Another depth of the same generation counts as known: it could not be condemned beside it.
        CONTINUE WHEN EXISTS (SELECT 1 FROM s3dedup.representations r
                WHERE r.digest = o_digest AND r.generation = o_generation)
            OR EXISTS (SELECT 1 FROM s3dedup.intents t WHERE t.digest = o_digest AND t.generation = o_generation)
            OR EXISTS (SELECT 1 FROM s3dedup.condemned c WHERE c.digest = o_digest AND c.generation = o_generation);
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now());
        RETURN NEXT;
    END LOOP;
END $$;
